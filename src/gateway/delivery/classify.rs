//! What an outcome means, and when the next attempt is due. Pure.

use super::exchange::{Answer, Failure};
use http::{HeaderMap, header};
use kero_domain::Timestamp;
use kero_domain::retry::jitter;
use std::time::{Duration, SystemTime};

/// What an outcome means for the delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Success,
    /// Again, and not before `after` when the endpoint asked for that.
    Retry {
        after: Option<Duration>,
    },
    /// Never again.
    Dead,
}

/// The longest wait that an endpoint may ask for.
pub(crate) const LONGEST_HINT: Duration = Duration::from_secs(3600);

/// 2xx is success. Everything else is tried again: redirects, which are not followed, client errors, which a receiver
/// may mend, and 410, which disables the endpoint beside ([`is_gone`]).
pub(crate) fn classify(outcome: &Result<Answer, Failure>, now: Timestamp) -> Verdict {
    match outcome {
        Ok(answer) if (200..300).contains(&answer.status) => Verdict::Success,
        Ok(answer) => Verdict::Retry { after: retry_after(&answer.headers, now) },
        Err(_) => Verdict::Retry { after: None },
    }
}

/// What is said of an answer whose status alone may surprise.
pub(crate) fn remark(answer: &Answer) -> Option<&'static str> {
    matches!(answer.status, 301 | 302 | 303 | 307 | 308)
        .then_some("redirects are not followed; set the URL that this one leads to")
}

/// The endpoint says that it wants nothing any more.
pub(crate) fn is_gone(outcome: &Result<Answer, Failure>) -> bool {
    matches!(outcome, Ok(Answer { status: 410, .. }))
}

/// `Retry-After` in seconds, with decimals if need be, or as an HTTP date; at most [`LONGEST_HINT`]. What is neither,
/// or lies in the past, is no hint.
pub(crate) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<f64>() {
        Ok(secs) if secs.is_finite() && secs > 0.0 => Duration::from_secs_f64(secs.min(LONGEST_HINT.as_secs_f64())),
        Ok(_) => return None,
        Err(_) => {
            let at = httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
            now.until(Timestamp(i64::try_from(at.as_millis()).ok()?))
        }
    };
    (!wait.is_zero()).then(|| wait.min(LONGEST_HINT))
}

/// When the attempt after the `counted`th counted one is due; `None` when the schedule is used up.
pub(crate) fn next_attempt(
    schedule: &[Duration],
    counted: u32,
    after: Option<Duration>,
    now: Timestamp,
    random: f64,
) -> Option<Timestamp> {
    let index = usize::try_from(counted).ok()?.checked_sub(1)?;
    let wait = jitter(*schedule.get(index)?, random);
    Some(now.after(wait.max(after.unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::super::timing::Timings;
    use super::*;

    const NOW: Timestamp = Timestamp(1_445_412_470_000);

    fn answer(status: u16, hint: Option<&str>) -> Result<Answer, Failure> {
        let mut headers = HeaderMap::new();
        if let Some(hint) = hint {
            headers.insert(header::RETRY_AFTER, hint.parse().unwrap());
        }
        Ok(Answer { status, headers, head: Vec::new(), timings: Timings::default() })
    }

    #[test]
    fn two_hundreds_are_success_and_nothing_else() {
        for status in [200, 201, 204, 299] {
            assert_eq!(classify(&answer(status, None), NOW), Verdict::Success, "{status}");
        }
        for status in [100, 199, 300, 301, 302, 304, 307, 400, 404, 410, 422, 429, 500, 503, 599, 999] {
            assert_eq!(classify(&answer(status, None), NOW), Verdict::Retry { after: None }, "{status}");
            assert_eq!(is_gone(&answer(status, None)), status == 410);
        }
        let failed = Err(Failure { error: "x".to_owned(), timings: Timings::default() });
        assert_eq!(classify(&failed, NOW), Verdict::Retry { after: None });
    }

    #[test]
    fn hints_are_taken_in_every_form_and_no_nonsense() {
        let after = |hint: &str| match classify(&answer(429, Some(hint)), NOW) {
            Verdict::Retry { after } => after,
            other => panic!("{other:?}"),
        };
        for (hint, millis) in [
            ("7", 7_000),
            (" 7 ", 7_000),
            ("0.5", 500),
            ("3601", 3_600_000),
            ("1e9", 3_600_000),
            ("1e300", 3_600_000),
            ("Wed, 21 Oct 2015 07:28:00 GMT", 10_000),
            ("Wed, 21 Oct 2099 07:28:00 GMT", 3_600_000),
        ] {
            assert_eq!(after(hint), Some(Duration::from_millis(millis)), "{hint}");
        }
        for hint in [
            "0",
            "-1",
            "banana",
            "",
            "NaN",
            "inf",
            "Wed, 21 Oct 2015 07:27:00 GMT",
            "1969-12-31",
            "99999999999999999999x",
        ] {
            assert_eq!(after(hint), None, "{hint}");
        }
    }

    #[test]
    fn the_schedule_and_the_hint_the_later_one_counts() {
        let schedule = [Duration::from_secs(5), Duration::from_secs(300)];
        let next = |counted, after: Option<u64>, random| {
            next_attempt(&schedule, counted, after.map(Duration::from_secs), NOW, random).map(|at| at.0 - NOW.0)
        };
        assert_eq!(next(1, None, 0.5), Some(5_000));
        assert_eq!((next(2, None, 0.0), next(2, None, 1.0)), (Some(240_000), Some(360_000)));
        assert_eq!((next(1, Some(60), 0.5), next(2, Some(60), 0.5)), (Some(60_000), Some(300_000)));
        assert_eq!((next(3, Some(60), 0.5), next(0, None, 0.5)), (None, None));
    }
}
