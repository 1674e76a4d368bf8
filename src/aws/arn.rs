//! The names of things as IAM policies spell them.

use crate::stream::TargetId;

/// The partition of a region, the second field of its ARNs.
pub(super) fn partition(region: &str) -> &'static str {
    match region.split('-').next() {
        Some("cn") => "aws-cn",
        Some("eusc") => "aws-eusc",
        Some("us") if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

/// The node: an EC2 instance, or a managed instance where it is hybrid.
pub(super) fn node(region: &str, account: &str, target: &TargetId) -> String {
    let (service, kind) = if target.is_hybrid() { ("ssm", "managed-instance") } else { ("ec2", "instance") };
    format!("arn:{}:{service}:{region}:{account}:{kind}/{target}", partition(region))
}

/// The document, in the form that matches AWS's own documents whatever account field the service compares.
pub(super) fn document(region: &str, name: &str) -> String {
    format!("arn:{}:ssm:*:*:document/{name}", partition(region))
}

/// The sessions that the caller started, as AWS's quickstart policy for end users spells them.
pub(super) fn own_sessions(region: &str) -> String {
    format!("arn:{}:ssm:*:*:session/${{aws:userid}}-*", partition(region))
}

/// The account of the ARN that a refusal names (`User: arn:aws:sts::123456789012:… is not authorized …`).
pub(super) fn account_in(message: &str) -> Option<&str> {
    let arn = &message[message.find("arn:")?..];
    let account = arn.split(':').nth(4)?;
    (account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit())).then_some(account)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ec2_node_and_a_hybrid_node_have_different_arns() {
        let ec2 = TargetId::new("i-0123456789abcdef0").unwrap();
        let hybrid = TargetId::new("mi-0123456789abcdef0").unwrap();
        assert_eq!(
            node("eu-west-1", "123456789012", &ec2),
            "arn:aws:ec2:eu-west-1:123456789012:instance/i-0123456789abcdef0"
        );
        assert_eq!(
            node("eu-west-1", "123456789012", &hybrid),
            "arn:aws:ssm:eu-west-1:123456789012:managed-instance/mi-0123456789abcdef0"
        );
    }

    #[test]
    fn the_partition_follows_the_region() {
        assert_eq!(partition("eu-central-1"), "aws");
        assert_eq!(partition("us-east-1"), "aws");
        assert_eq!(partition("us-gov-west-1"), "aws-us-gov");
        assert_eq!(partition("cn-north-1"), "aws-cn");
        assert_eq!(partition("eusc-de-east-1"), "aws-eusc");
    }

    #[test]
    fn the_account_is_taken_from_the_refusal() {
        let message =
            "User: arn:aws:sts::123456789012:assumed-role/dev/jo is not authorized to perform: ssm:StartSession";
        assert_eq!(account_in(message), Some("123456789012"));
        assert_eq!(account_in("no arn at all"), None);
        assert_eq!(account_in("arn:aws:ssm:*:*:document/x"), None);
        assert_eq!(account_in("arn:"), None);
    }
}
