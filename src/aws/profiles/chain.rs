//! From a profile to the place where its credentials come from, over the roles on the way.

use super::{Found, Profiles};

/// Where the first credentials of a profile come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::aws) enum Base {
    /// The profile holds none: other sources are asked.
    Nothing,
    Keys,
    /// A login of `aws sso login`.
    Sso,
    /// The profile whose `credential_process` is run.
    Process(String),
    /// The environment, a container, an instance, a web identity.
    Elsewhere,
}

/// How a profile's credentials come about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::aws) struct Way {
    pub(in crate::aws) base: Base,
    /// Where a role on the way wants a code (`mfa_serial`), which nobody is asked for here.
    pub(in crate::aws) code: Option<String>,
}

pub(super) const SSO_KEYS: [&str; 5] =
    ["sso_session", "sso_start_url", "sso_region", "sso_account_id", "sso_role_name"];
const SOURCES: [&str; 3] = ["Environment", "Ec2InstanceMetadata", "EcsContainer"];

impl Profiles {
    /// The error says what is missing or contradictory, with file and line.
    pub(in crate::aws) fn way(&self, profile: &str) -> Result<Way, String> {
        if !self.has(profile) {
            return Err(self.unknown(profile));
        }
        let (mut seen, mut name, mut code) = (Vec::new(), profile.to_owned(), None);
        loop {
            if seen.contains(&name) {
                return Err(format!("the profiles {} name each other as `source_profile`", seen.join(", ")));
            }
            seen.push(name.clone());
            let has_keys = || KEYS.iter().all(|key| self.find(&name, key).is_some());
            if seen.len() > 1 && has_keys() {
                return Ok(Way { base: Base::Keys, code });
            }
            if self.find(&name, "role_arn").is_none() || self.find(&name, "web_identity_token_file").is_some() {
                break;
            }
            code = code.or_else(|| self.find(&name, "mfa_serial").map(|found| found.to_string()));
            match self.source(&name)? {
                Some(next) => name = next,
                None => break,
            }
        }
        let base = self.base(&name)?;
        if base == Base::Nothing && seen.len() > 1 {
            return Err(format!("{} holds no credentials, and is the `source_profile` of another", self.named(&name)));
        }
        Ok(Way { base, code })
    }

    /// The profile whose credentials a role is assumed with; `None` where they come from the same one.
    fn source(&self, profile: &str) -> Result<Option<String>, String> {
        match (self.find(profile, "source_profile"), self.find(profile, "credential_source")) {
            (Some(found), None) if found.value() == profile => Ok(None),
            (Some(found), None) if !self.has(found.value()) => {
                let (source, unknown) = (found.value(), self.unknown(found.value()));
                Err(format!(
                    "`source_profile = {source}` of the profile `{profile}` ({found}) cannot be used: {unknown}"
                ))
            }
            (Some(found), None) => Ok(Some(found.value().to_owned())),
            (None, Some(_)) => Ok(None),
            (Some(_), Some(_)) => {
                Err(format!("{} has both `source_profile` and `credential_source`", self.named(profile)))
            }
            (None, None) => Err(format!(
                "{} has `role_arn` and needs `source_profile` or `credential_source` beside it",
                self.named(profile)
            )),
        }
    }

    fn base(&self, profile: &str) -> Result<Base, String> {
        let find = |key| self.find(profile, key);
        if let Some(source) = find("credential_source") {
            let is_known = SOURCES.iter().any(|known| known.eq_ignore_ascii_case(source.value()));
            return if is_known {
                Ok(Base::Elsewhere)
            } else {
                Err(format!("`credential_source` ({source}) has to be one of {}", SOURCES.join(", ")))
            };
        }
        if let Some(token) = find("web_identity_token_file") {
            return self.needed(profile, "role_arn", token).map(|()| Base::Elsewhere);
        }
        if SSO_KEYS.iter().any(|key| find(key).is_some()) {
            return self.sso(profile).map(|()| Base::Sso);
        }
        if let Some(login) = find("login_session") {
            return Err(format!(
                "the profile `{profile}` is one of `aws login` ({login}), whose credentials the AWS CLI alone can read: name a \
                 profile with `credential_process = aws configure export-credentials --profile {profile} --format process`"
            ));
        }
        if find("credential_process").is_some() {
            return Ok(Base::Process(profile.to_owned()));
        }
        self.keys(profile)
    }

    fn keys(&self, profile: &str) -> Result<Base, String> {
        let [id, secret] = KEYS.map(|key| self.find(profile, key));
        for found in [id, secret].into_iter().flatten() {
            if found.value().starts_with(['"', '\'']) {
                return Err(format!("`{}` ({found}) stands in quotes: take them away", found.property.key));
            }
        }
        match (id, secret) {
            (None, None) => Ok(Base::Nothing),
            (Some(id), None) => self.needed(profile, KEYS[1], id).map(|()| Base::Keys),
            (None, Some(secret)) => self.needed(profile, KEYS[0], secret).map(|()| Base::Keys),
            (Some(_), Some(_)) => Ok(Base::Keys),
        }
    }

    fn sso(&self, profile: &str) -> Result<(), String> {
        let beside =
            SSO_KEYS.iter().find_map(|key| self.find(profile, key)).map_or_else(String::new, |it| it.to_string());
        let session = self.find(profile, "sso_session");
        if let Some(session) = session.filter(|session| !self.has_section("sso-session", session.value())) {
            let name = session.value();
            return Err(format!(
                "`sso_session = {name}` of the profile `{profile}` ({session}) names a section that is not there: [sso-session {name}]"
            ));
        }
        for key in &SSO_KEYS[1..] {
            let in_session = session.and_then(|session| self.find_in("sso-session", session.value(), key));
            if self.find(profile, key).or(in_session).is_none() {
                return Err(format!("the profile `{profile}` ({beside}) lacks `{key}`"));
            }
        }
        Ok(())
    }

    fn needed(&self, profile: &str, key: &str, beside: Found<'_>) -> Result<(), String> {
        match self.find(profile, key) {
            Some(_) => Ok(()),
            None => Err(format!("the profile `{profile}` has `{}` ({beside}) and lacks `{key}`", beside.property.key)),
        }
    }
}

const KEYS: [&str; 2] = ["aws_access_key_id", "aws_secret_access_key"];
