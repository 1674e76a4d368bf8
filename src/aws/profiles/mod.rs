//! The AWS configuration files of this user, and what they say about one profile.
//!
//! aws-config reads these files itself, but passes over what it does not understand, and waits for the writer of a FIFO. Here
//! they are read once, bounded, and handed over in the form that it expects; what cannot work is said with file and line.

mod chain;
mod handover;
mod parse;

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use self::parse::{Property, Section};
use crate::files::{FileFault, Opened};

/// Far more than any of these files has.
const LARGEST_FILE: usize = 1 << 20;

/// Most names that a message lists.
const MAX_NAMES: usize = 8;

pub(super) use self::chain::{Base, Way};
pub(super) use self::handover::{Command, sdk_name};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Config,
    Credentials,
}

/// Where the files are: what the environment says of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    pub(super) home: Option<PathBuf>,
    /// `AWS_CONFIG_FILE`.
    pub(super) config: Option<PathBuf>,
    /// `AWS_SHARED_CREDENTIALS_FILE`.
    pub(super) credentials: Option<PathBuf>,
}

impl Places {
    fn path(&self, named: Option<&PathBuf>, usual: &str) -> Option<PathBuf> {
        let Some(named) = named else { return Some(self.home.as_ref()?.join(".aws").join(usual)) };
        match (named.strip_prefix("~"), &self.home) {
            (Ok(rest), Some(home)) => Some(home.join(rest)),
            _ => Some(named.clone()),
        }
    }
}

#[derive(Debug)]
struct AwsFile {
    kind: Kind,
    path: PathBuf,
    sections: Vec<Section>,
    /// Why nothing of it is known.
    remark: Option<String>,
}

/// Both files.
#[derive(Debug)]
pub(super) struct Profiles {
    files: Vec<AwsFile>,
}

/// One property, and where it stands.
#[derive(Debug, Clone, Copy)]
struct Found<'a> {
    property: &'a Property,
    path: &'a Path,
}

impl Found<'_> {
    fn value(&self) -> &str {
        &self.property.value
    }
}

/// `FILE, line N`.
impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}", self.path.display(), self.property.line)
    }
}

impl AwsFile {
    /// What is missing, or cannot be opened, is empty, as for the AWS CLI; what is there has to be understood.
    fn read(kind: Kind, path: PathBuf, is_named: bool) -> Result<Self, String> {
        let mut file = Self { kind, path, sections: Vec::new(), remark: None };
        let path = file.path.display();
        match content(&file.path) {
            Ok(content) => {
                let parsed = parse::parse(&content);
                let bad = |bad: parse::BadLine| format!("{path}, line {} {}", bad.line, bad.reason);
                file.sections = parsed.map_err(bad)?;
            }
            Err(FileFault::TooLarge) => return Err(format!("{path} is larger than 1 MiB")),
            Err(fault) if fault.is_missing() => {
                file.remark = is_named.then(|| format!("{path} does not exist"));
            }
            Err(FileFault::NotAFile(what)) => file.remark = Some(format!("{path} is {what}, not a file")),
            Err(FileFault::Io(error)) => file.remark = Some(format!("{path} cannot be read: {error}")),
        }
        Ok(file)
    }

    /// The sections of this profile.
    fn sections_of<'a>(&'a self, profile: &str) -> impl Iterator<Item = &'a Section> {
        self.sections.iter().filter(move |section| self.profile_of(section).as_deref() == Some(profile))
    }

    /// The profile that a section describes, if it does.
    fn profile_of(&self, section: &Section) -> Option<String> {
        match (self.kind, section.header.split_once(' ')) {
            (Kind::Config, Some(("profile", name))) => Some(unquoted(name).to_owned()),
            (Kind::Config, None) if section.header == "default" => Some("default".to_owned()),
            (Kind::Credentials, None) => Some(section.header.clone()),
            (Kind::Credentials, Some((prefix, _))) if prefix != "profile" => Some(section.header.clone()),
            _ => None,
        }
    }
}

/// The file's bytes. `/dev/null` is a usual way to say that there are none.
fn content(path: &Path) -> Result<Vec<u8>, FileFault> {
    if path.canonicalize().is_ok_and(|path| path == Path::new("/dev/null")) {
        return Ok(Vec::new());
    }
    let mut opened = Opened::open(path)?;
    if opened.ownership.mode & 0o002 != 0 {
        let path = path.display();
        tracing::warn!(
            "anybody may write {path}, and so choose the commands and credentials that are used: `chmod o-w {path}`"
        );
    }
    Ok(opened.read(LARGEST_FILE)?.to_vec())
}

/// `"a b"` and `'a b'` are `a b`.
fn unquoted(name: &str) -> &str {
    let inner = |quote| name.strip_prefix(quote).and_then(|name| name.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(name)
}

impl Profiles {
    /// Reads both files. The error says which line of which file is not understood.
    pub(super) fn read(places: &Places) -> Result<Self, String> {
        let config = places.path(places.config.as_ref(), "config");
        let credentials = places.path(places.credentials.as_ref(), "credentials");
        let both = [
            (Kind::Config, config, places.config.is_some()),
            (Kind::Credentials, credentials, places.credentials.is_some()),
        ];
        let files = both.into_iter().filter_map(|(kind, path, is_named)| Some(AwsFile::read(kind, path?, is_named)));
        Ok(Self { files: files.collect::<Result<_, _>>()? })
    }

    /// Files of which nothing is known, with the reason.
    pub(super) fn remarks(&self) -> impl Iterator<Item = &str> {
        self.files.iter().filter_map(|file| file.remark.as_deref())
    }

    pub(super) fn has(&self, profile: &str) -> bool {
        self.files.iter().any(|file| file.sections_of(profile).next().is_some())
    }

    /// A property of a profile. As with the AWS CLI the credentials file outweighs the other, and a later line an earlier.
    fn find(&self, profile: &str, key: &str) -> Option<Found<'_>> {
        self.files.iter().rev().find_map(|file| {
            let sections: Vec<_> = file.sections_of(profile).collect();
            last(&sections, key).map(|property| Found { property, path: &file.path })
        })
    }

    /// A property of a section of another kind in the config file, such as `sso-session`.
    fn find_in(&self, kind: &str, name: &str, key: &str) -> Option<Found<'_>> {
        let config = self.files.iter().find(|file| file.kind == Kind::Config)?;
        let sections: Vec<_> = config.sections.iter().filter(|section| is_section(section, kind, name)).collect();
        last(&sections, key).map(|property| Found { property, path: &config.path })
    }

    fn has_section(&self, kind: &str, name: &str) -> bool {
        self.files.iter().flat_map(|file| &file.sections).any(|section| is_section(section, kind, name))
    }

    /// Where a profile begins: `FILE, line N`.
    fn place(&self, profile: &str) -> String {
        let begin = |file: &AwsFile| {
            let section = file.sections_of(profile).next()?;
            Some(format!("{}, line {}", file.path.display(), section.line))
        };
        self.files.iter().find_map(begin).unwrap_or_else(|| "no file".to_owned())
    }

    /// The profile, with the place where it begins.
    pub(super) fn named(&self, profile: &str) -> String {
        format!("the profile `{profile}` ({})", self.place(profile))
    }

    /// A property's value, and where it stands.
    pub(super) fn value(&self, profile: &str, key: &str) -> Option<(String, String)> {
        self.find(profile, key).map(|found| (found.value().to_owned(), found.to_string()))
    }

    /// Where this value of a profile's property stands, if it does: `FILE, line N`.
    pub(super) fn place_of(&self, profile: &str, key: &str, value: &str) -> Option<String> {
        self.find(profile, key).filter(|found| found.value() == value).map(|found| found.to_string())
    }

    /// That there is no such profile, and which there are.
    fn unknown(&self, profile: &str) -> String {
        let paths: Vec<_> = self.files.iter().map(|file| file.path.display().to_string()).collect();
        let mut text = match paths.as_slice() {
            [] => format!("there is no profile `{profile}`: no HOME, and so no file, is known"),
            paths => format!("there is no profile `{profile}` in {}", paths.join(" or ")),
        };
        text.extend(self.misnamed(profile).map(|misnamed| format!("; {misnamed}")));
        text.extend(self.remarks().map(|remark| format!("; {remark}")));
        let names = self.names();
        if !names.is_empty() {
            let rest = if names.len() > MAX_NAMES { ", …" } else { "" };
            let _ = write!(text, "; there are: {}{rest}", names[..names.len().min(MAX_NAMES)].join(", "));
        }
        text
    }

    /// A section that was meant for this profile and is none of it.
    fn misnamed(&self, profile: &str) -> Option<String> {
        let prefixed = format!("profile {profile}");
        self.files.iter().find_map(|file| {
            let (wrong, right) = match file.kind {
                Kind::Config => (profile, prefixed.as_str()),
                Kind::Credentials => (prefixed.as_str(), profile),
            };
            let section = file.sections.iter().find(|section| section.header == wrong)?;
            Some(format!("[{wrong}] in {}, line {} has to be [{right}]", file.path.display(), section.line))
        })
    }

    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for name in self.files.iter().flat_map(|file| file.sections.iter().filter_map(|it| file.profile_of(it))) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

fn is_section(section: &Section, kind: &str, name: &str) -> bool {
    section.header.split_once(' ').is_some_and(|(prefix, rest)| prefix == kind && unquoted(rest) == name)
}

fn last<'a>(sections: &[&'a Section], key: &str) -> Option<&'a Property> {
    sections.iter().rev().find_map(|section| section.properties.iter().rev().find(|property| property.key == key))
}

#[cfg(test)]
mod tests;
