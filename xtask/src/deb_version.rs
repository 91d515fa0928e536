//! Debian's order of versions (deb-version(7)), and the choice of one version of a kernel from what
//! a mirror offers.

use std::cmp::Ordering;

use crate::pattern;

/// A package that a mirror offers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Offer {
    pub(crate) package: String,
    pub(crate) version: String,
    pub(crate) suite: String,
}

/// Parts of package names that mark variants of the kernel which the tests do not use.
const PASSED_OVER: &[&str] = &["-cloud-", "-rt-", "-dbg", "-unsigned", "-signed"];

/// Finds the newest version for which `suites` offer a package for each of `patterns`. Returns
/// these offers in the order of the patterns. The `*` stands for the same text in all of them, and
/// all have the same version.
pub(crate) fn choose<'offers>(
    offers: &'offers [Offer],
    patterns: &[String],
    suites: &[String],
) -> Option<Vec<&'offers Offer>> {
    let (first, rest) = patterns.split_first()?;
    let usable = |offer: &&Offer| {
        suites.contains(&offer.suite) && !PASSED_OVER.iter().any(|part| offer.package.contains(part))
    };
    let complete = |offer: &'offers Offer| {
        let star = pattern::capture(first, &offer.package)?;
        let mut set = vec![offer];
        for pattern in rest {
            let name = pattern.replacen('*', star, 1);
            let same = |other: &&Offer| other.package == name && other.version == offer.version;
            set.push(offers.iter().filter(usable).find(same)?);
        }
        Some(set)
    };
    let version = |set: &Vec<&Offer>| set.first().map(|offer| offer.version.clone()).unwrap_or_default();
    offers.iter().filter(usable).filter_map(complete).max_by(|a, b| compare(&version(a), &version(b)))
}

/// Orders two versions as dpkg does: epoch, then upstream version, then revision.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (split(a), split(b));
    a.0.cmp(&b.0).then_with(|| compare_part(a.1, b.1)).then_with(|| compare_part(a.2, b.2))
}

/// Epoch, upstream version and revision.
fn split(version: &str) -> (u64, &str, &str) {
    let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch.parse().unwrap_or(0), upstream, revision)
}

/// Compares, in turns, a run of other characters and a run of digits.
fn compare_part(mut a: &str, mut b: &str) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let (text_a, text_b) = (take(&mut a, |c| !c.is_ascii_digit()), take(&mut b, |c| !c.is_ascii_digit()));
        let (digits_a, digits_b) =
            (take(&mut a, |c| c.is_ascii_digit()), take(&mut b, |c| c.is_ascii_digit()));
        let number = |digits: &str| digits.parse::<u128>().unwrap_or(0);
        let order = compare_text(text_a, text_b).then_with(|| number(digits_a).cmp(&number(digits_b)));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// Removes the longest prefix of `text` in which every character is `wanted`, and returns it.
fn take<'text>(text: &mut &'text str, wanted: fn(char) -> bool) -> &'text str {
    let end = text.find(|c| !wanted(c)).unwrap_or(text.len());
    let (head, tail) = text.split_at(end);
    *text = tail;
    head
}

/// Compares runs without digits: `~` is before the end, the end before letters, letters before all
/// else.
fn compare_text(a: &str, b: &str) -> Ordering {
    let rank = |c: Option<char>| match c {
        Some('~') => (0, '~'),
        None => (1, ' '),
        Some(c) if c.is_ascii_alphabetic() => (2, c),
        Some(c) => (3, c),
    };
    let length = a.len().max(b.len());
    let at = |text: &str, index| rank(text.chars().nth(index));
    (0..length)
        .map(|index| at(a, index).cmp(&at(b, index)))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check the order on cases whose result dpkg has given.
    #[test]
    fn orders_like_dpkg() {
        let ascending = [
            "5.10.223-1",
            "6.1.9-1",
            "6.1.192-1~bpo1+1",
            "6.1.192-1",
            "6.1.192-2",
            "6.12.9-1",
            "6.12.10-1",
            "1:0-1",
        ];
        for (index, a) in ascending.iter().enumerate() {
            for (other, b) in ascending.iter().enumerate() {
                assert_eq!(compare(a, b), index.cmp(&other), "{a} {b}");
            }
        }
        assert_eq!(compare("1.0", "1.00"), Ordering::Equal);
        assert_eq!(compare("1.0~rc1", "1.0"), Ordering::Less);
        assert_eq!(compare("1.0a", "1.0+"), Ordering::Less);
    }

    fn offer(package: &str, version: &str, suite: &str) -> Offer {
        Offer { package: package.into(), version: version.into(), suite: suite.into() }
    }

    fn chosen(offers: &[Offer], patterns: &[&str], suites: &[&str]) -> Option<Vec<String>> {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let set = choose(offers, &owned(patterns), &owned(suites))?;
        Some(set.into_iter().map(|offer| offer.package.clone()).collect())
    }

    /// Check that the newest standard kernel in the right suites is chosen.
    #[test]
    fn newest_of_the_suites() {
        let offers = [
            offer("linux-image-6.1.0-9-amd64", "6.1.27-1", "bookworm"),
            offer("linux-image-6.1.0-47-amd64", "6.1.170-3", "bookworm"),
            offer("linux-image-6.1.0-56-cloud-amd64", "6.1.192-2", "bookworm"),
            offer("linux-image-6.1.0-56-amd64-dbg", "6.1.192-2", "bookworm"),
            offer("linux-image-6.1.0-60-amd64", "6.1.200-1", "elsewhere"),
        ];
        let set = chosen(&offers, &["linux-image-6.1.*-amd64"], &["bookworm"]).unwrap();
        assert_eq!(set, ["linux-image-6.1.0-47-amd64"]);
        assert_eq!(chosen(&offers, &["linux-image-5.10.*-amd64"], &["bookworm"]), None);
    }

    /// Check that an image without its modules is skipped in favour of an older complete pair.
    #[test]
    fn pairs_stay_together() {
        let offers = [
            offer("linux-binary-7.2.13-amd64", "7.2.13-1", "sid"),
            offer("linux-binary-7.2.12-amd64", "7.2.12-1", "sid"),
            offer("linux-modules-7.2.12-amd64", "7.2.12-1", "sid"),
            offer("linux-modules-7.2.13-amd64", "7.2.13-2", "sid"),
        ];
        let set =
            chosen(&offers, &["linux-binary-7.2.*-amd64", "linux-modules-7.2.*-amd64"], &["sid"]).unwrap();
        assert_eq!(set, ["linux-binary-7.2.12-amd64", "linux-modules-7.2.12-amd64"]);
    }
}
