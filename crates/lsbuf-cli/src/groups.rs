//! Names of groups, from `/etc/group`.
//!
//! Limit: groups of a directory service are not in that file; they are named by their numbers.

/// Numbers and names, in the file's order; none if it cannot be read.
pub(crate) fn read() -> Vec<(u32, String)> {
    std::fs::read("/etc/group").map_or_else(|_| Vec::new(), |text| parse(&String::from_utf8_lossy(&text)))
}

/// A group's name, or else its number.
pub(crate) fn name(groups: &[(u32, String)], gid: u32) -> String {
    groups.iter().find(|(number, _)| *number == gid).map_or_else(|| gid.to_string(), |(_, name)| name.clone())
}

/// `NAME:PASSWORD:GID:MEMBERS`, see group(5).
fn parse(text: &str) -> Vec<(u32, String)> {
    let group = |line: &str| {
        let mut fields = line.split(':');
        let (name, gid) = (fields.next()?, fields.nth(1)?);
        Some((gid.parse().ok()?, name.to_owned()))
    };
    text.lines().filter_map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that only whole lines are read, and that a group without a name is shown by its
    /// number.
    #[test]
    fn lines_of_group() {
        let groups = parse("root:x:0:\nvideo:x:44:ann,bob\n+::\nbroken\n");
        assert_eq!(groups, [(0, "root".to_owned()), (44, "video".to_owned())]);
        assert_eq!((name(&groups, 44).as_str(), name(&groups, 45).as_str()), ("video", "45"));
    }
}
