//! `KERO_SECTION__KEY` variables as a source. The type of a value is the default's, so that a key made of digits stays
//! a text.

use super::DEFAULTS;
use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Error, Figment, Metadata, Profile, Provider};

/// Keys that can be read from a file named by `KERO_…_FILE`.
const FROM_FILE: [&str; 4] = ["api_key", "master_key", "database_url", "redis_url"];

/// The variables that begin with `KERO_`.
#[derive(Debug, Clone)]
pub struct Environment {
    variables: Vec<(String, String)>,
}

impl Environment {
    pub fn empty() -> Self {
        Self { variables: Vec::new() }
    }

    /// The variables of this process.
    pub fn of_process() -> Self {
        Self::from_iter(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    /// Variables that look like ours, have no section and name no key; they are ignored (a container platform sets
    /// such variables for a service named kero), and worth a line in the log.
    pub fn unknown(&self) -> Vec<&str> {
        let Ok(defaults) = defaults() else { return Vec::new() };
        let known = |name: &str| defaults.find_ref(&path_of(file_key(name).unwrap_or(name))).is_some();
        self.variables.iter().map(|(name, _)| name.as_str()).filter(|name| is_plain(name) && !known(name)).collect()
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(all: I) -> Self {
        let ours = |name: &str| name.starts_with("KERO_") && name != "KERO_CONFIG" && !name.starts_with("KERO_TEST_");
        Self { variables: all.into_iter().filter(|(name, _)| ours(name)).collect() }
    }
}

impl Provider for Environment {
    fn metadata(&self) -> Metadata {
        Metadata::named("the environment")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        let defaults = defaults()?;
        let mut dict = Dict::new();
        for (name, value) in &self.variables {
            let (path, value) = match file_key(name) {
                Some(key) => (path_of(key), read_file(name, value)?),
                None => (path_of(name), value.clone()),
            };
            match defaults.find_ref(&path) {
                Some(default) => insert(&mut dict, &path, typed(name, &value, default)?),
                // A name with a section is meant for us; left in, it is refused as an unknown key.
                None if !is_plain(name) => insert(&mut dict, &path, Value::from(value)),
                None => {}
            }
        }
        Ok(Profile::Default.collect(dict))
    }
}

/// The defaults as a tree: which keys exist and of which type they are.
fn defaults() -> Result<Value, String> {
    Figment::from(Toml::string(DEFAULTS)).extract::<Dict>().map(Value::from).map_err(|error| error.to_string())
}

/// No section in the name.
fn is_plain(name: &str) -> bool {
    !name.trim_start_matches("KERO_").contains("__")
}

/// `KERO_QUEUE__MAX_RETRIES` → `queue.max_retries`
fn path_of(name: &str) -> String {
    name.trim_start_matches("KERO_").to_ascii_lowercase().replace("__", ".")
}

/// `KERO_API_KEY_FILE` → `KERO_API_KEY`, for the keys that allow it.
fn file_key(name: &str) -> Option<&str> {
    name.strip_suffix("_FILE").filter(|key| FROM_FILE.contains(&path_of(key).as_str()))
}

fn read_file(name: &str, path: &str) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|why| format!("{name}: {path}: {why}"))?;
    Ok(text.trim().to_owned())
}

fn typed(name: &str, text: &str, default: &Value) -> Result<Value, String> {
    let text = text.trim();
    Ok(match default {
        Value::Bool(..) => match text {
            "true" | "1" => Value::from(true),
            "false" | "0" => Value::from(false),
            _ => return Err(format!("{name}: expected true or false")),
        },
        Value::Num(..) => Value::from(text.parse::<u64>().map_err(|_| format!("{name}: expected a whole number"))?),
        Value::Array(..) => Value::from(list(text)),
        _ => Value::from(text.to_owned()),
    })
}

/// `a, b` or `["a", "b"]`
fn list(text: &str) -> Vec<String> {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let items = inner.split(',').map(|item| item.trim().trim_matches(['"', '\'']).to_owned());
    items.filter(|item| !item.is_empty()).collect()
}

fn insert(dict: &mut Dict, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            dict.insert(path.to_owned(), value);
        }
        Some((section, rest)) => {
            let entry = dict.entry(section.to_owned()).or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, inner) = entry {
                insert(inner, rest, value);
            }
        }
    }
}
