//! Keys of `ssh_config` that change nothing here: taken where they ask for what is so in any case, refused with the reason
//! where they ask for something else.

use std::ffi::OsStr;

/// A key with nothing to set.
pub(super) struct Idle {
    pub(super) key: &'static str,
    /// Whether what is asked for is so in any case.
    is_so: fn(&str) -> bool,
    /// Why nothing else can be had, or what to do instead.
    otherwise: &'static str,
}

impl Idle {
    /// The key of this name, in whatever case.
    pub(super) fn find(typed: &[u8]) -> Option<&'static Self> {
        IDLE.iter().find(|idle| idle.key.as_bytes().eq_ignore_ascii_case(typed))
    }

    /// Takes `value`, or says why it cannot be had.
    pub(super) fn check(&self, value: &OsStr) -> Result<(), &'static str> {
        let is_so = value.to_str().is_some_and(|text| (self.is_so)(&text.to_ascii_lowercase()));
        if is_so { Ok(()) } else { Err(self.otherwise) }
    }
}

const KEYS_ONLY: &str = "only keys log in here: name one with `-i FILE`";
const STAYS_HERE: &str = "keys and screens of this machine are not lent to a node";
const NO_FORWARDS: &str = "the AWS CLI forwards a port: `aws ssm start-session --target NODE --document-name \
    AWS-StartPortForwardingSession --parameters portNumber=80,localPortNumber=8080`";
const STRAIGHT: &str = "none is needed: Session Manager leads to the node itself, and HTTPS_PROXY names a proxy to AWS";
const STRONGEST: &str = "the strongest that both sides know is taken";

fn any(_: &str) -> bool {
    true
}

fn yes(value: &str) -> bool {
    matches!(value, "yes" | "true")
}

/// With a key, in any of ssh's ways of being bound to the host or not.
fn with_keys(value: &str) -> bool {
    yes(value) || matches!(value, "host-bound" | "unbound")
}

fn no(value: &str) -> bool {
    matches!(value, "no" | "false")
}

fn none(value: &str) -> bool {
    value == "none"
}

fn never(_: &str) -> bool {
    false
}

fn has_public_key(value: &str) -> bool {
    value.split(',').any(|method| method.trim() == "publickey")
}

fn is_nothing(value: &str) -> bool {
    matches!(value, "none" | "/dev/null")
}

/// Sorted by key.
const IDLE: &[Idle] = &[
    Idle {
        key: "AddKeysToAgent",
        is_so: no,
        otherwise: "keys are read for one run: `ssh-add FILE` gives one to an agent",
    },
    Idle { key: "ChallengeResponseAuthentication", is_so: no, otherwise: KEYS_ONLY },
    Idle { key: "CheckHostIP", is_so: any, otherwise: "" },
    Idle { key: "Ciphers", is_so: never, otherwise: STRONGEST },
    Idle { key: "ClearAllForwardings", is_so: any, otherwise: "" },
    Idle { key: "ConnectionAttempts", is_so: any, otherwise: "" },
    Idle { key: "ControlMaster", is_so: any, otherwise: "" },
    Idle { key: "ControlPath", is_so: any, otherwise: "" },
    Idle { key: "ControlPersist", is_so: any, otherwise: "" },
    Idle { key: "DynamicForward", is_so: never, otherwise: NO_FORWARDS },
    Idle { key: "ExitOnForwardFailure", is_so: any, otherwise: "" },
    Idle { key: "ForwardAgent", is_so: no, otherwise: STAYS_HERE },
    Idle { key: "ForwardX11", is_so: no, otherwise: STAYS_HERE },
    Idle { key: "ForwardX11Trusted", is_so: no, otherwise: STAYS_HERE },
    Idle { key: "GSSAPIAuthentication", is_so: no, otherwise: KEYS_ONLY },
    Idle { key: "GSSAPIDelegateCredentials", is_so: no, otherwise: KEYS_ONLY },
    Idle { key: "GSSAPIKeyExchange", is_so: no, otherwise: KEYS_ONLY },
    Idle {
        key: "GlobalKnownHostsFile",
        is_so: is_nothing,
        otherwise: "one file of known hosts is read: name it with `--known-hosts`",
    },
    Idle { key: "HashKnownHosts", is_so: no, otherwise: "node ids are kept readable in the file of known hosts" },
    Idle { key: "HostKeyAlgorithms", is_so: never, otherwise: STRONGEST },
    Idle { key: "HostName", is_so: never, otherwise: "a node has no other name than its id" },
    Idle { key: "HostbasedAuthentication", is_so: no, otherwise: KEYS_ONLY },
    Idle { key: "KbdInteractiveAuthentication", is_so: no, otherwise: KEYS_ONLY },
    Idle { key: "KexAlgorithms", is_so: never, otherwise: STRONGEST },
    Idle { key: "LocalForward", is_so: never, otherwise: NO_FORWARDS },
    Idle { key: "MACs", is_so: never, otherwise: STRONGEST },
    Idle { key: "NumberOfPasswordPrompts", is_so: any, otherwise: "" },
    Idle { key: "PasswordAuthentication", is_so: no, otherwise: KEYS_ONLY },
    Idle { key: "PermitLocalCommand", is_so: no, otherwise: "no command runs on this machine: a script can run it" },
    Idle { key: "PreferredAuthentications", is_so: has_public_key, otherwise: KEYS_ONLY },
    Idle { key: "ProxyCommand", is_so: none, otherwise: STRAIGHT },
    Idle { key: "ProxyJump", is_so: none, otherwise: STRAIGHT },
    Idle { key: "PubkeyAcceptedAlgorithms", is_so: never, otherwise: STRONGEST },
    Idle { key: "PubkeyAuthentication", is_so: with_keys, otherwise: KEYS_ONLY },
    Idle { key: "RemoteCommand", is_so: none, otherwise: "the command stands behind the node: `ssmssh NODE COMMAND`" },
    Idle {
        key: "RemoteForward",
        is_so: never,
        otherwise: "a command's input and output can be piped: `COMMAND | ssmssh NODE COMMAND`",
    },
    Idle { key: "TCPKeepAlive", is_so: any, otherwise: "" },
    Idle { key: "Tunnel", is_so: no, otherwise: NO_FORWARDS },
    Idle {
        key: "UpdateHostKeys",
        is_so: no,
        otherwise: "a node's key is kept at the first connection and never changed after that",
    },
    Idle { key: "VerifyHostKeyDNS", is_so: no, otherwise: "a node's id has no record in DNS" },
    Idle { key: "VisualHostKey", is_so: no, otherwise: "keys are shown by their SHA-256 fingerprints" },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: &str, value: &str) -> Result<(), &'static str> {
        Idle::find(key.as_bytes()).unwrap().check(OsStr::new(value))
    }

    #[test]
    fn what_is_so_in_any_case_is_taken() {
        let given = "ControlMaster=auto ControlPersist=60s ControlPath=~/.ssh/cm-%C passwordauthentication=no \
            KbdInteractiveAuthentication=no PreferredAuthentications=gssapi-with-mic,hostbased,publickey \
            ForwardAgent=no ForwardX11=No GSSAPIAuthentication=no CheckHostIP=yes HashKnownHosts=no TCPKeepAlive=yes \
            ConnectionAttempts=3 GlobalKnownHostsFile=/dev/null ProxyCommand=none RemoteCommand=none PubkeyAuthentication=yes \
            PubkeyAuthentication=host-bound PubkeyAuthentication=unbound";
        for (key, value) in given.split_whitespace().filter_map(|one| one.split_once('=')) {
            assert_eq!(check(key, value), Ok(()), "{key}={value}");
        }
    }

    #[test]
    fn what_would_make_a_difference_is_refused_with_the_reason() {
        for (key, value, reason) in [
            ("ForwardAgent", "yes", "not lent to a node"),
            ("ForwardAgent", "/run/agent", "not lent to a node"),
            ("ProxyJump", "bastion", "Session Manager leads to the node itself"),
            ("ProxyCommand", "nc %h %p", "HTTPS_PROXY"),
            ("PasswordAuthentication", "yes", "only keys log in"),
            ("PubkeyAuthentication", "no", "only keys log in"),
            ("PreferredAuthentications", "password", "only keys log in"),
            ("LocalForward", "80:localhost:80", "AWS-StartPortForwardingSession"),
            ("RemoteCommand", "uptime", "stands behind the node"),
            ("Ciphers", "aes128-ctr", "the strongest"),
        ] {
            let said = check(key, value).unwrap_err();
            assert!(said.contains(reason), "{key}={value}: {said}");
        }
    }

    #[test]
    fn every_refusal_has_a_reason_and_no_key_stands_twice() {
        assert!(IDLE.is_sorted_by(|one, next| one.key < next.key));
        for idle in IDLE {
            assert_eq!(idle.otherwise.is_empty(), (idle.is_so)("what nobody says"), "{}", idle.key);
            assert!(super::super::KEYS.iter().all(|(key, _)| *key != idle.key), "{}", idle.key);
        }
    }
}
