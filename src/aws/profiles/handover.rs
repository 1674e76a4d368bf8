//! What was read, in the form that aws-config expects.

use std::fmt::Write as _;

use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};

use super::parse::{Property, Section};
use super::{AwsFile, Kind, Profiles, unquoted};

/// Properties whose value is the name of a section.
const NAMES: [&str; 3] = ["source_profile", "sso_session", "services"];

/// The command of a `credential_process`, which is run by us.
#[derive(Debug, Clone)]
pub(in crate::aws) struct Command {
    pub(in crate::aws) profile: String,
    pub(in crate::aws) line: String,
    /// Where it stands: `FILE, line N`.
    pub(in crate::aws) place: String,
    /// The name under which a profile asks for it, as its `credential_source`.
    pub(in crate::aws) source: String,
}

impl Profiles {
    /// Both files, for aws-config. What it would not take, and the AWS CLI does, is spelt as it does.
    pub(in crate::aws) fn for_sdk(&self) -> EnvConfigFiles {
        let mut files = EnvConfigFiles::builder();
        for file in &self.files {
            let kind = match file.kind {
                Kind::Config => EnvConfigFileKind::Config,
                Kind::Credentials => EnvConfigFileKind::Credentials,
            };
            files = files.with_contents(kind, self.spelt(file));
        }
        files.build()
    }

    /// The processes that profiles name as the origin of their credentials.
    pub(in crate::aws) fn command(&self, profile: &str) -> Option<Command> {
        let found = self.find(profile, "credential_process").filter(|_| self.runs_process(profile))?;
        Some(Command {
            profile: profile.to_owned(),
            line: found.property.whole.clone(),
            place: found.to_string(),
            source: process_source(profile),
        })
    }

    /// Whether nothing else in the profile comes before its process.
    fn runs_process(&self, profile: &str) -> bool {
        let before = ["role_arn", "web_identity_token_file", "credential_source", "login_session"];
        let is_other = before.iter().chain(&super::chain::SSO_KEYS).any(|key| self.find(profile, key).is_some());
        !is_other && self.find(profile, "credential_process").is_some()
    }

    pub(super) fn spelt(&self, file: &AwsFile) -> String {
        let mut text = String::new();
        for section in &file.sections {
            let profile = file.profile_of(section);
            let _ = writeln!(text, "[{}]", header(file.kind, section, profile.as_deref()));
            for property in &section.properties {
                self.spell(&mut text, profile.as_deref(), property);
            }
        }
        text
    }

    fn spell(&self, text: &mut String, profile: Option<&str>, property: &Property) {
        let (key, value) = (property.key.as_str(), property.value.as_str());
        let find = |key| profile.and_then(|profile| self.find(profile, key));
        let line = match key {
            // The session's section says it, too; here the SDK refuses it.
            "sso_start_url" | "sso_region" if find("sso_session").is_some() => return,
            "credential_process" if profile.is_some_and(|profile| self.runs_process(profile)) => {
                format!("credential_source = {}", process_source(profile.unwrap_or_default()))
            }
            _ if NAMES.contains(&key) => format!("{key} = {}", sdk_name(value)),
            _ => format!("{key} = {value}"),
        };
        let _ = writeln!(text, "{line}");
        let is_nested = value.is_empty();
        for below in property.below.iter().filter(|below| !is_nested || is_pair(below)) {
            let _ = writeln!(text, "  {below}");
        }
    }
}

fn header(kind: Kind, section: &Section, profile: Option<&str>) -> String {
    match (kind, profile, section.header.split_once(' ')) {
        (_, Some("default"), _) => "default".to_owned(),
        (Kind::Config, Some(name), _) => format!("profile {}", sdk_name(name)),
        (Kind::Credentials, Some(name), _) => sdk_name(name),
        (_, None, Some((kind, name))) => format!("{kind} {}", sdk_name(unquoted(name))),
        (_, None, None) => sdk_name(&section.header),
    }
}

fn process_source(profile: &str) -> String {
    format!("process/{}", sdk_name(profile))
}

/// A name of which every letter is one that aws-config takes in names.
pub(in crate::aws) fn sdk_name(name: &str) -> String {
    let is_taken = |letter: char| letter.is_ascii_alphanumeric() || "_-/.%@:+".contains(letter);
    let mut spelt = String::with_capacity(name.len());
    for letter in name.chars() {
        if is_taken(letter) {
            spelt.push(letter);
        } else {
            let _ = write!(spelt, "%{:x}", u32::from(letter));
        }
    }
    spelt
}

fn is_pair(line: &str) -> bool {
    line.split_once('=').is_some_and(|(name, _)| !name.trim().is_empty())
}
