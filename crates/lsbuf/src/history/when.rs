//! Times of a recording, as people write them.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Span, SpanRelativeTo, Timestamp, ToSpan, Zoned};

use super::{Recording, Sample};
use crate::error::{Error, ErrorKind};

/// A time of a recording.
///
/// ```
/// use lsbuf::history::When;
/// let times = ["start", "end", "-10m", "14:05", "2026-11-27T14:05:00Z"];
/// assert!(times.iter().all(|time| time.parse::<When>().is_ok()));
/// assert!("noon".parse::<When>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum When {
    /// Its first sample.
    Start,
    /// Its last sample.
    End,
    /// That long before its last sample.
    Before(Duration),
    /// A time of day by the local clock: the last one in the recording.
    Clock(Time),
    /// A point in time.
    At(SystemTime),
}

/// The forms that are understood.
const VALID: &str = "valid: start, end, -10m (before the end), 14:05, 2026-11-27T14:05:00Z";

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<When, String> {
        let wrong = || format!("not a time; {VALID}");
        match text {
            "start" => return Ok(When::Start),
            "end" => return Ok(When::End),
            _ => {}
        }
        if let Some(before) = text.strip_prefix('-') {
            return duration(before).map(When::Before).map_err(|_| wrong());
        }
        if let Ok(at) = text.parse::<Timestamp>() {
            return Ok(When::At(at.into()));
        }
        // A date without a zone is the local one.
        let with_date = |text: &str| text.parse::<jiff::civil::DateTime>().ok();
        if let Some(at) = with_date(text).filter(|_| text.contains('-')) {
            let zoned = at.to_zoned(TimeZone::system()).map_err(|_| wrong())?;
            return Ok(When::At(zoned.timestamp().into()));
        }
        text.parse().map(When::Clock).map_err(|_| wrong())
    }
}

/// A length of time as people write it: `90s`, `10m`, `1h 30m`, `7d`.
///
/// # Errors
/// If it is none, or is negative.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "not a length of time; valid: 500ms, 90s, 10m, 1h30m, 7d".to_owned();
    let span: Span = text.parse().map_err(|_| wrong())?;
    let length = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    Duration::try_from(length).map_err(|_| wrong())
}

impl Recording {
    /// The sample that was the newest one at that time.
    ///
    /// # Errors
    /// If the recording has no sample, or spans another time; if it cannot be read.
    pub fn sample_when(&self, when: When) -> Result<Sample, Error> {
        let empty =
            || Error::new(ErrorKind::NotFound, format!("{} has no sample yet", self.path().display()));
        let (first, last) = self.span()?.ok_or_else(empty)?;
        let at = match when {
            When::Start => return Ok(first),
            When::End => return Ok(last),
            When::Before(before) => last.taken_at.checked_sub(before),
            When::At(at) => Some(at),
            When::Clock(time) => last_clock(last.taken_at, time),
        };
        let within = at.filter(|&at| {
            at <= last.taken_at || matches!(when, When::At(at) if same_second(at, last.taken_at))
        });
        let found = within.map(|at| self.sample_at(at)).transpose()?.flatten();
        found.ok_or_else(|| {
            let text = format!(
                "{} has nothing of that time: it spans {} to {}",
                self.path().display(),
                shown(first.taken_at),
                shown(last.taken_at)
            );
            Error::new(ErrorKind::NotFound, text)
        })
    }
}

/// Whether a time that is written to the second is that of a sample.
fn same_second(written: SystemTime, taken: SystemTime) -> bool {
    let seconds = |time: SystemTime| Timestamp::try_from(time).map(|stamp| stamp.as_second()).ok();
    seconds(written) == seconds(taken)
}

/// The last moment up to `end` at which the local clock showed that time of day.
fn last_clock(end: SystemTime, time: Time) -> Option<SystemTime> {
    let end = Timestamp::try_from(end).ok()?.to_zoned(TimeZone::system());
    let on = |day: &Zoned| day.with().time(time).build().ok();
    let today = on(&end)?;
    let found = if today <= end { today } else { on(&end.checked_sub(1.day()).ok()?)? };
    Some(found.timestamp().into())
}

/// A time as the local clock shows it, to the second, with its offset.
#[must_use]
pub fn shown(time: SystemTime) -> String {
    let Ok(stamp) = Timestamp::try_from(time) else { return "?".to_owned() };
    stamp.to_zoned(TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check each form that a time may have.
    #[test]
    fn forms() {
        let at = |seconds| When::At(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!("start".parse(), Ok(When::Start));
        assert_eq!("end".parse(), Ok(When::End));
        assert_eq!("-10m".parse(), Ok(When::Before(Duration::from_secs(600))));
        assert_eq!("-1h30m".parse(), Ok(When::Before(Duration::from_secs(5400))));
        assert_eq!("14:05".parse(), Ok(When::Clock(jiff::civil::time(14, 5, 0, 0))));
        assert_eq!("14:05:09".parse(), Ok(When::Clock(jiff::civil::time(14, 5, 9, 0))));
        assert_eq!("1970-01-02T00:00:00Z".parse(), Ok(at(86_400)));
        assert_eq!("1970-01-02T01:00:00+01:00".parse(), Ok(at(86_400)));
    }

    /// Check that what is no time is refused with what is.
    #[test]
    fn nonsense() {
        for text in ["", "noon", "-", "-x", "25:00", "1970-13-01", "-10m ago", "--5m"] {
            assert_eq!(text.parse::<When>(), Err(format!("not a time; {VALID}")), "{text}");
        }
    }

    /// Check lengths of time, in each unit and together.
    #[test]
    fn durations() {
        let of = |text| duration(text).map(|length| length.as_millis()).ok();
        assert_eq!(
            ["500ms", "90s", "10m", "1h30m", "7d"].map(of),
            [500, 90_000, 600_000, 5_400_000, 604_800_000].map(Some)
        );
        assert_eq!(["", "5", "-5s", "x", "1 month"].map(of), [None; 5]);
    }

    /// Check that a time of day is the last one before the end.
    #[test]
    fn clocks() {
        let end: Zoned = "2026-11-27T14:05:30[UTC]".parse().unwrap();
        let local = |time: Time| {
            last_clock(end.timestamp().into(), time).map(|found| Timestamp::try_from(found).unwrap())
        };
        let zone = TimeZone::system();
        let before = local(jiff::civil::time(0, 0, 0, 0)).unwrap().to_zoned(zone);
        assert!(before.timestamp() <= end.timestamp());
        assert!(end.timestamp().duration_since(before.timestamp()) < jiff::SignedDuration::from_hours(24));
    }
}
