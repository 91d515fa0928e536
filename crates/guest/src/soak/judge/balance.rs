//! Whether an answer's sums are right: it must not contradict itself, whatever the truth is.

use serde_json::Value;

use crate::answer::Answer;
use crate::soak::figures::cost;

/// Where an answer contradicts itself.
pub(super) fn unbalanced(answer: &Answer) -> Vec<String> {
    let mut wrong = Vec::new();
    let number = |v: &Value| v.as_u64().unwrap_or(0);
    for b in answer.list("buffers") {
        let refs = &b["refs"];
        let lengths = |key: &str| -> usize {
            let holders = b["holders"].as_array().into_iter().flatten();
            holders.map(|holder| holder[key].as_array().map_or(0, Vec::len)).sum()
        };
        for (key, list) in [("fd", "fds"), ("map", "maps"), ("opath", "opaths")] {
            if refs[key] != lengths(list) {
                wrong.push(format!("{key} is not the number of the holders' {list}: {b}"));
            }
        }
        let found =
            ["fd", "map", "in_flight", "io_uring", "exe"].iter().map(|key| number(&refs[*key])).sum::<u64>();
        let exact = b["estimate"] == Value::Bool(false);
        let known = ["in_flight", "io_uring", "kernel"].iter().all(|key| refs[*key].is_u64());
        let sums_up = refs["kernel"].as_u64().map(|kernel| Some(kernel + found) == b["count"].as_u64());
        // Without a count there is no account, exact or not.
        if exact && !b["count"].is_null() && !(known && sums_up == Some(true)) || sums_up == Some(false) {
            wrong.push(format!("an account that does not balance: {b}"));
        }
    }
    let totals = &answer.0["totals"];
    let sum = |list: &str, key: &str, keep: fn(&Value) -> bool| -> Option<u64> {
        // Memfds without a count are left out of this sum.
        let uncounted = |v: &Value| key == "kernel" && v["kind"] == "memfd" && v["refs"]["kernel"].is_null();
        let kept = answer.list(list).iter().filter(|v| keep(v) && !uncounted(v));
        let value = |v: &Value| match key {
            "kernel" => v["refs"][key].as_u64(),
            "size" => cost(v),
            _ => v[key].as_u64(),
        };
        kept.map(value).sum()
    };
    let holderless = |b: &Value| b["holders"].as_array().is_none_or(Vec::is_empty);
    for (total, expected) in [
        ("buffers", Some(answer.list("buffers").len() as u64)),
        ("size", sum("buffers", "size", |_| true)),
        ("held", sum("buffers", "size", |b| b["holders"].as_array().is_some_and(|h| !h.is_empty()))),
        ("kernel_only", sum("buffers", "size", holderless)),
        ("rss", sum("processes", "rss", |_| true)),
        ("pss", sum("processes", "pss", |_| true)),
        ("unattributed_refs", sum("buffers", "kernel", |_| true)),
    ] {
        if totals[total].as_u64() != expected {
            wrong.push(format!("{total} should be {expected:?} in the totals: {totals}"));
        }
    }
    if totals["pss"] != totals["held"] {
        wrong.push(format!("pss and held differ in the totals: {totals}"));
    }
    if totals["estimate"] != answer.list("buffers").iter().any(|b| b["estimate"] == Value::Bool(true)) {
        wrong.push(format!("estimate is not what the buffers say in the totals: {totals}"));
    }
    wrong
}
