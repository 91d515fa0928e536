//! Aliases in place of what other processes chose, and of what names processes, users and machines.
//!
//! It works on documents of JSON, by the names of their keys, so that it is one list for all of
//! them. A text of a key that the list does not have gets an alias, too: what is forgotten is not
//! told. A test walks the schemas, so that nothing is forgotten.
//!
//! The same text has the same alias, of each class for itself: `command-1`, `path-2`. Numbers that
//! name processes, users, cgroups and keys become small numbers, so that the documents keep their
//! schema. User 0 stays 0.
//!
//! What stays: figures, times, states, kinds, inode numbers, fds, addresses of mappings, the
//! kernel's release, exporters, and the kernel's own functions and modules.
//!
//! Limits: who knows the machine may tell a program by its figures. Notes are lsbuf's own words; in
//! them every text that has an alias, every path and every pid is replaced.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Number, Value};

/// What becomes of the value of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// It stays.
    Keep,
    /// A text, or each text of a list, gets an alias with that word.
    Alias(&'static str),
    /// A number, or each number of a list, gets another one of that class.
    Number(&'static str),
    /// The build id of a program gets another one, with as many digits.
    BuildId,
    /// A path or a name: what it is shows in its first character.
    Name,
    /// Free text, in which what has an alias is replaced.
    Text,
    /// It is left out, or null if it is no key that may be missing.
    Drop,
}

use Rule::{Alias, Drop, Keep, Name, Text};

/// The words of the command line, the name and the path of a program have classes of their own.
const COMMAND: Rule = Alias("command");
const PID: Rule = Rule::Number("pid");
const USER: Rule = Rule::Number("user");
const CGROUP_ID: Rule = Rule::Number("cgroup");

/// What becomes of a key inside of another one, where its name alone does not tell. `""`: anywhere.
pub(super) const RULES: &[(&str, &str, Rule)] = &[
    // What other processes chose.
    ("", "comm", COMMAND),
    ("", "creator_comm", COMMAND),
    ("", "last_comm", COMMAND),
    ("", "command", COMMAND),
    ("", "args", Alias("word")),
    ("", "exe", Alias("path")),
    ("", "thread", Alias("thread")),
    ("", "cgroup", Alias("cgroup")),
    ("", "unit", Alias("unit")),
    ("", "container", Alias("container")),
    ("pod", "uid", Alias("pod")),
    ("pod", "namespace", Alias("namespace")),
    ("pod", "name", Alias("pod-name")),
    ("", "user", Alias("user")),
    ("", "hostname", Alias("host")),
    ("", "boot_id", Alias("boot")),
    ("", "path", Alias("path")),
    ("", "reached_path", Alias("path")),
    ("", "remove_command", Drop),
    ("devices", "name", Alias("device")),
    ("", "attachments", Alias("device")),
    ("functions", "name", Alias("function")),
    ("functions", "file", Alias("file")),
    ("kernel", "function", Keep),
    ("kernel", "module", Keep),
    ("", "module", Alias("module")),
    ("", "build_id", Rule::BuildId),
    ("", "stack", Alias("stack")),
    ("", "name", Name),
    ("", "notes", Text),
    // Numbers that name something.
    ("", "pid", PID),
    ("", "tid", PID),
    ("", "parent", PID),
    ("", "candidates", PID),
    ("", "creator_pid", PID),
    ("", "last_pid", PID),
    ("", "reached_pid", PID),
    ("", "fd_table_of", PID),
    ("", "address_space_of", PID),
    ("", "inherited_from", PID),
    ("", "uid", USER),
    ("", "owner", USER),
    ("", "creator_uid", USER),
    ("", "cgroup_id", CGROUP_ID),
    ("cgroups", "id", CGROUP_ID),
    ("segment", "key", Rule::Number("key")),
    // The kernel's words, and lsbuf's.
    ("host", "kernel", Keep),
    ("", "schema", Keep),
    ("", "taken_at", Keep),
    ("", "first_sample", Keep),
    ("", "last_sample", Keep),
    ("", "sources", Keep),
    ("", "looked_for", Keep),
    ("", "kind", Keep),
    ("", "exporter", Keep),
    ("", "dev", Keep),
    ("", "seals", Keep),
    ("", "estimate_reason", Keep),
    ("", "leak_shape", Keep),
    ("", "memory_owner", Keep),
    ("", "what", Keep),
    ("", "created_at", Keep),
    ("", "state", Keep),
    ("", "why", Keep),
    ("", "at", Keep),
    ("", "address", Keep),
    ("", "user_end", Keep),
    ("", "unwind", Keep),
    ("", "start", Keep),
    ("", "end", Keep),
    ("", "perms", Keep),
];

/// The rule of a key inside of another one. `None`: the list has none.
pub(super) fn rule(parent: &str, key: &str) -> Option<Rule> {
    let of = |parent: &str| RULES.iter().find(|rule| (rule.0, rule.1) == (parent, key)).map(|rule| rule.2);
    of(parent).or_else(|| of(""))
}

/// Replaces what the list of rules says in all documents, with the same aliases.
pub(super) fn redact(documents: &mut [&mut Value]) {
    let mut aliases = Aliases::default();
    documents.iter_mut().for_each(|document| aliases.value("", document));
    documents.iter_mut().for_each(|document| aliases.notes(document));
}

#[derive(Default)]
struct Aliases {
    /// By class and text.
    texts: HashMap<(&'static str, String), String>,
    /// By class and number.
    numbers: HashMap<(&'static str, u64), u64>,
    /// The last alias of each class of texts, and of numbers.
    last: HashMap<&'static str, u64>,
    last_number: HashMap<&'static str, u64>,
}

impl Aliases {
    /// Replaces what is in a value, which is that of the key `parent` or in a list of it.
    fn value(&mut self, parent: &str, value: &mut Value) {
        match value {
            Value::Array(values) => values.iter_mut().for_each(|value| self.value(parent, value)),
            Value::Object(object) => self.object(parent, object),
            _ => {}
        }
    }

    fn object(&mut self, parent: &str, object: &mut Map<String, Value>) {
        // The bytes tell texts apart that are the same without what was lost.
        let bytes: BTreeMap<String, Value> = object
            .iter()
            .filter(|(key, _)| key.ends_with("_bytes"))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        object.retain(|key, value| !key.ends_with("_bytes") || !has_text(value));
        for (key, value) in object.iter_mut() {
            let exact = bytes.get(&format!("{key}_bytes"));
            match (rule(parent, key), &mut *value) {
                // A stack is an object in one document, and a text in another one.
                (_, Value::Object(_)) => self.value(key, value),
                (_, Value::Array(values)) if values.iter().any(|value| value.is_object()) => {
                    self.value(key, value);
                }
                (Some(Keep | Text), _) => {}
                (Some(Drop), _) => *value = Value::Null,
                (Some(Rule::Number(class)), _) => self.each_number(class, value),
                (Some(Alias(class)), _) => self.each_text(&|_| class, value, exact),
                (Some(Rule::BuildId), _) => self.build_id(value),
                (Some(Name), _) => {
                    self.each_text(&|text| if text.starts_with('/') { "path" } else { "name" }, value, exact);
                }
                (None, _) => self.each_text(&|_| "text", value, exact),
            }
        }
    }

    /// Replaces a text, or each of a list.
    fn each_text(&mut self, class: &dyn Fn(&str) -> &'static str, value: &mut Value, exact: Option<&Value>) {
        match value {
            Value::String(text) if text.is_empty() => {}
            Value::String(text) => {
                let whole = exact.and_then(Value::as_str).unwrap_or(text);
                *text = self.text(class(text), whole.to_owned());
            }
            Value::Array(values) => {
                for (nth, value) in values.iter_mut().enumerate() {
                    self.each_text(class, value, exact.and_then(|exact| exact.get(nth)));
                }
            }
            _ => {}
        }
    }

    fn text(&mut self, class: &'static str, text: String) -> String {
        let last = &mut self.last;
        let alias = self.texts.entry((class, text)).or_insert_with(|| {
            let last = last.entry(class).or_default();
            *last += 1;
            format!("{class}-{last}")
        });
        alias.clone()
    }

    fn build_id(&mut self, value: &mut Value) {
        if let Value::String(id) = value {
            let alias = self.text("build", std::mem::take(id));
            *id = format!("{:0>40}", alias.trim_start_matches("build-"));
        }
    }

    /// Replaces a number, or each of a list. 0 is nobody, or root.
    fn each_number(&mut self, class: &'static str, value: &mut Value) {
        match value {
            Value::Array(values) => values.iter_mut().for_each(|value| self.each_number(class, value)),
            Value::Number(number) => match number.as_u64() {
                Some(0) => {}
                Some(known) => *number = Number::from(self.number(class, known)),
                None => *value = Value::Null,
            },
            // No number has this key in the schemas.
            Value::String(text) => *text = self.text("text", std::mem::take(text)),
            _ => {}
        }
    }

    fn number(&mut self, class: &'static str, number: u64) -> u64 {
        let last = &mut self.last_number;
        *self.numbers.entry((class, number)).or_insert_with(|| {
            let last = last.entry(class).or_default();
            *last += 1;
            *last
        })
    }

    /// Replaces in the notes of a document what has an alias by now.
    fn notes(&mut self, document: &mut Value) {
        let Some(Value::Array(notes)) = document.pointer_mut("/scan/notes") else { return };
        let mut known: Vec<(String, String)> =
            self.texts.iter().map(|((_, text), alias)| (text.clone(), alias.clone())).collect();
        // The longest first, so that no part of a text is replaced before the whole.
        known.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.cmp(b)));
        known.retain(|(text, _)| text.chars().any(|c| !c.is_ascii_digit()));
        for note in notes {
            if let Value::String(text) = note {
                *text = self.note(&known, text);
            }
        }
    }

    /// A note with aliases. What was replaced is not looked at again.
    fn note(&mut self, known: &[(String, String)], text: &str) -> String {
        let mut done = String::with_capacity(text.len());
        let mut rest = text;
        let mut after_process = false;
        while let Some(first) = rest.chars().next() {
            let begins = !done.ends_with(|c: char| c.is_alphanumeric());
            let hit = known.iter().find(|(text, _)| begins && starts_with_words(rest, text));
            if let Some((text, alias)) = hit {
                done.push_str(alias);
                rest = &rest[text.len()..];
                continue;
            }
            if first == '/' && begins {
                let end = rest.find(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | ')'));
                let path = rest[..end.unwrap_or(rest.len())].trim_end_matches([':', '.']);
                let after = &rest[path.len()..];
                done.push_str(&self.text("path", path.to_owned()));
                rest = after;
                continue;
            }
            let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len()).max(first.len_utf8());
            let (word, after) = rest.split_at(end);
            match word.parse::<u64>() {
                Ok(pid) if after_process => done.push_str(&self.number("pid", pid).to_string()),
                number => {
                    done.push_str(word);
                    // Pids stand in a list behind this word: "processes 12, 13 and 14".
                    let is_list = number.is_ok() || matches!(word, " " | "," | "(" | "and");
                    after_process =
                        matches!(word, "process" | "processes" | "pid" | "pids") || after_process && is_list;
                }
            }
            rest = after;
        }
        done
    }
}

/// Whether a text begins with another one, and not within a word of it.
fn starts_with_words(text: &str, other: &str) -> bool {
    let ends_word = |c: char| !c.is_alphanumeric();
    !other.is_empty()
        && text.strip_prefix(other).is_some_and(|after| {
            after.is_empty() || other.ends_with(ends_word) || after.starts_with(ends_word)
        })
}

fn has_text(value: &Value) -> bool {
    match value {
        Value::String(_) => true,
        Value::Array(values) => values.iter().any(has_text),
        _ => false,
    }
}
