//! The lines of an AWS configuration file, read as the AWS CLI reads them: Python's `configparser`, and a little more.

/// Whether a line is one section, one property of it, or belongs to the property before it, is told by its indentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    /// What stands between the brackets, its words parted by one blank.
    pub(super) header: String,
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) properties: Vec<Property>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Property {
    /// In lower case.
    pub(super) key: String,
    /// Without a comment behind it.
    pub(super) value: String,
    /// With what looks like a comment: in a command it may be none.
    pub(super) whole: String,
    /// Lines that are indented below it.
    pub(super) below: Vec<String>,
    /// Counted from 1.
    pub(super) line: usize,
}

/// A line that is not understood. Its content is not repeated: it may be half of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadLine {
    pub(super) line: usize,
    pub(super) reason: &'static str,
}

/// The sections in the order of the file. Bytes that are not UTF-8 matter to nobody in comments, and are replaced in values.
pub(super) fn parse(content: &[u8]) -> Result<Vec<Section>, BadLine> {
    let text = String::from_utf8_lossy(content);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut sections: Vec<Section> = Vec::new();
    let mut indentation = 0;
    for (number, line) in text.split('\n').enumerate().map(|(index, line)| (index + 1, line)) {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        let bad = |reason| BadLine { line: number, reason };
        let depth = line.len() - line.trim_start().len();
        if trimmed.starts_with('[') {
            indentation = depth;
            let properties = Vec::new();
            sections.push(Section { header: header(trimmed).map_err(bad)?, line: number, properties });
            continue;
        }
        let section = sections.last_mut().ok_or_else(|| bad("stands before the first [section]"))?;
        match section.properties.last_mut() {
            Some(property) if depth > indentation => property.below.push(trimmed.to_owned()),
            _ => {
                indentation = depth;
                section.properties.push(property(trimmed, number).map_err(bad)?);
            }
        }
    }
    Ok(sections)
}

/// What follows the bracket is nobody's business.
fn header(line: &str) -> Result<String, &'static str> {
    let (header, _) = line[1..].split_once(']').ok_or("begins with `[` and lacks `]`")?;
    Ok(header.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn property(line: &str, number: usize) -> Result<Property, &'static str> {
    let (key, value) = line.split_once(['=', ':']).ok_or("is neither `[section]` nor `name = value`")?;
    let (key, whole) = (key.trim().to_ascii_lowercase(), value.trim());
    if key.is_empty() {
        return Err("has no name before `=`");
    }
    let value = without_comment(whole).to_owned();
    Ok(Property { key, value, whole: whole.to_owned(), below: Vec::new(), line: number })
}

/// As the SDK cuts it: at a `#` or `;` behind a blank.
fn without_comment(value: &str) -> &str {
    let mut is_after_blank = true;
    let begin = value.char_indices().find(|(_, letter)| {
        let is_begin = is_after_blank && matches!(letter, '#' | ';');
        is_after_blank = letter.is_whitespace();
        is_begin
    });
    begin.map_or(value, |(index, _)| value[..index].trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: impl AsRef<[u8]>) -> Vec<(String, Vec<(String, String)>)> {
        let sections = parse(content.as_ref()).unwrap_or_else(|bad| panic!("line {}: {}", bad.line, bad.reason));
        let pairs =
            |section: Section| section.properties.into_iter().map(|property| (property.key, property.value)).collect();
        sections.into_iter().map(|section| (section.header.clone(), pairs(section))).collect()
    }

    #[test]
    fn files_as_people_write_them_all_say_the_same() {
        let expected = [("profile a", "eu-west-1"), ("profile b", "us-east-1")]
            .map(|(header, region)| (header.to_owned(), vec![("region".to_owned(), region.to_owned())]));
        for content in [
            "[profile a]\nregion = eu-west-1\n[profile b]\nregion=us-east-1\n",
            "[profile a]\r\nregion = eu-west-1\r\n\r\n[profile b]\r\nregion = us-east-1",
            "\u{feff}[profile a]\nregion = eu-west-1\n[profile b]\nregion = us-east-1",
            " [profile a]\nregion = eu-west-1\n [profile b]\nregion = us-east-1",
            "[profile a] junk\nregion = eu-west-1\n[ profile\tb ] # mine\nREGION : us-east-1 # home",
            "[profile a]\n  region = eu-west-1\n  # region = x\n[profile b]\n\tregion = us-east-1 ; home\n",
        ] {
            assert_eq!(read(content), expected, "{content:?}");
        }
        let latin1 = b"# caf\xe9\n[profile a]\nregion = eu-west-1\n[profile b]\nregion = us-east-1 # \xe9t\xe9";
        assert_eq!(read(latin1), expected);
        assert_eq!(read(""), []);
    }

    #[test]
    fn indented_lines_belong_to_what_stands_above_them() {
        let sections =
            parse(b"[services x]\nssm =\n  endpoint_url = https://a\nsts =\n  endpoint_url = https://b").unwrap();
        let below: Vec<_> = sections[0].properties.iter().map(|it| (it.key.as_str(), it.below.join("|"))).collect();
        assert_eq!(below, [("ssm", "endpoint_url = https://a".into()), ("sts", "endpoint_url = https://b".into())]);
    }

    #[test]
    fn a_line_that_makes_no_sense_is_named_by_its_number() {
        for (content, line, reason) in [
            ("region = eu-west-1", 1, "stands before the first [section]"),
            ("[default]\n\nregion", 3, "is neither `[section]` nor `name = value`"),
            ("[default]\n= x", 2, "has no name before `=`"),
            ("# mine\n[default", 2, "begins with `[` and lacks `]`"),
        ] {
            assert_eq!(parse(content.as_bytes()), Err(BadLine { line, reason }), "{content:?}");
        }
    }
}
