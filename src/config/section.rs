//! How a section is declared, read and documented.

use secrecy::SecretString;
use std::{collections::BTreeMap, fmt, time::Duration};

/// One setting as it is documented.
#[derive(Clone, Debug)]
pub struct Setting {
    pub name: &'static str,
    /// `bytes`, `seconds`, `text`, `secret`, `true or false`, …
    pub kind: &'static str,
    /// As it would be written; empty where there is none.
    pub default: String,
    pub doc: &'static str,
}

/// One thing that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub name: String,
    /// The fault and its remedy; never the value of a secret.
    pub problem: String,
}

/// Everything that is wrong with the settings, at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub faults: Vec<Fault>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.faults.len();
        write!(
            f,
            "{count} setting{} cannot be used:",
            if count == 1 { "" } else { "s" }
        )?;
        self.faults
            .iter()
            .try_for_each(|fault| write!(f, "\n  {}: {}", fault.name, fault.problem))
    }
}

impl std::error::Error for ConfigError {}

/// The variables that settings are read from. A value, so that tests and `dev` make their own.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The process's own variables.
    #[must_use]
    pub fn from_process() -> Self {
        Self(std::env::vars().collect())
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// The value of a setting without white space at its ends: a value from a file or a secret
    /// store ends in a line break. An empty one counts as not set.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(|value| value.trim())
            .filter(|value| !value.is_empty())
    }

    /// Puts the content of files in the place of `NAME_FILE`, for every setting `NAME`: a secret
    /// then stands in no environment. Only the path is ever reported.
    pub(super) fn read_files(mut self, known: &[Setting], faults: &mut Vec<Fault>) -> Self {
        let is_setting = |name: &str| known.iter().any(|setting| setting.name == name);
        let named: Vec<(String, String)> = self
            .0
            .keys()
            // A setting may itself be called so, such as one that names a certificate.
            .filter(|name| !is_setting(name))
            .filter_map(|name| Some((name.clone(), name.strip_suffix("_FILE")?.to_owned())))
            .filter(|(_, setting)| is_setting(setting))
            .collect();
        for (variable, setting) in named {
            let path = self.get(&variable).map(str::to_owned);
            self.0.remove(&variable);
            let Some(path) = path else { continue };
            if self.get(&setting).is_some() {
                faults.push(Fault {
                    name: variable,
                    problem: format!("{setting} is set too: leave one of them out"),
                });
                continue;
            }
            match std::fs::read_to_string(&path) {
                Ok(text) if text.trim().is_empty() => faults.push(Fault {
                    name: variable,
                    problem: format!("the file {path} is empty"),
                }),
                Ok(text) => {
                    self.0.insert(setting, text);
                }
                Err(error) => faults.push(Fault {
                    name: variable,
                    problem: format!("cannot read the file {path}: {error}"),
                }),
            }
        }
        self
    }

    /// Names that begin like ours and belong to no setting.
    pub(super) fn check_names(&self, known: &[Setting], faults: &mut Vec<Fault>) {
        // The test suite names its servers by these variables. A developer may have them in the
        // same environment.
        for name in self
            .0
            .keys()
            .filter(|name| name.starts_with("HOOKSWITCH_") && !name.starts_with("HOOKSWITCH_TEST_"))
        {
            if !known.iter().any(|setting| setting.name == name) {
                let nearest = known
                    .iter()
                    .map(|setting| setting.name)
                    .min_by_key(|candidate| distance(name, candidate))
                    .unwrap_or_default();
                faults.push(Fault {
                    name: name.clone(),
                    problem: format!("there is no such setting; the nearest is {nearest}"),
                });
            }
        }
    }
}

/// Levenshtein distance, for "the nearest is".
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let cost = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// A type that a setting can have.
pub trait SettingValue: Sized {
    const KIND: &'static str;
    /// # Errors
    /// The text that is expected; never the one that was given.
    fn parse(text: &str) -> Result<Self, String>;
    /// As it would be written. Secrets show nothing.
    fn show(&self) -> String;
}

macro_rules! number {
    ($($type:ty),+) => {$(
        impl SettingValue for $type {
            const KIND: &'static str = "number";
            fn parse(text: &str) -> Result<Self, String> {
                text.replace('_', "").parse().map_err(|_| format!("expected a whole number from 0 to {}", <$type>::MAX))
            }
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )+};
}
number!(u16, u32, u64, usize);

impl SettingValue for bool {
    const KIND: &'static str = "true or false";
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "expected true or false".to_owned())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl SettingValue for String {
    const KIND: &'static str = "text";
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
    fn show(&self) -> String {
        self.clone()
    }
}

/// Seconds, whole or with a fraction: the unit that every `…_SECONDS` setting has.
impl SettingValue for Duration {
    const KIND: &'static str = "seconds";
    fn parse(text: &str) -> Result<Self, String> {
        text.parse::<f64>()
            .ok()
            .and_then(|seconds| Self::try_from_secs_f64(seconds).ok())
            .ok_or_else(|| "expected a number of seconds".to_owned())
    }
    fn show(&self) -> String {
        self.as_secs_f64().to_string()
    }
}

impl SettingValue for SecretString {
    const KIND: &'static str = "secret";
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned().into())
    }
    fn show(&self) -> String {
        String::new()
    }
}

impl<T: SettingValue> SettingValue for Option<T> {
    const KIND: &'static str = T::KIND;
    fn parse(text: &str) -> Result<Self, String> {
        T::parse(text).map(Some)
    }
    fn show(&self) -> String {
        self.as_ref().map(T::show).unwrap_or_default()
    }
}

/// A list, separated by commas.
impl SettingValue for Vec<String> {
    const KIND: &'static str = "list, separated by commas";
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text
            .split(',')
            .map(|item| item.trim().to_owned())
            .filter(|item| !item.is_empty())
            .collect())
    }
    fn show(&self) -> String {
        self.join(",")
    }
}

/// Declares a section: a struct with a `Default`, its `load`, and the list of its settings with the
/// doc comments as their documentation.
macro_rules! section {
    ($(#[doc = $sdoc:literal])* $name:ident {
        $($(#[doc = $doc:literal])+ $field:ident: $type:ty = $default:expr, $env:literal $(or $alias:literal)?;)+
    }) => {
        $(#[doc = $sdoc])*
        #[derive(Clone, Debug)]
        pub struct $name { $($(#[doc = $doc])+ pub $field: $type,)+ }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        impl $name {
            pub(super) fn load(environment: &super::Environment, faults: &mut Vec<super::Fault>) -> Self {
                let mut settings = Self::default();
                $(
                    let text = environment.get($env)$(.or_else(|| environment.get($alias)))?;
                    if let Some(text) = text {
                        match <$type as super::SettingValue>::parse(text) {
                            Ok(value) => settings.$field = value,
                            Err(problem) => faults.push(super::Fault { name: $env.to_owned(), problem }),
                        }
                    }
                )+
                settings
            }

            pub(super) fn settings() -> Vec<super::Setting> {
                let default = Self::default();
                vec![$(super::Setting {
                    name: $env,
                    kind: <$type as super::SettingValue>::KIND,
                    default: super::SettingValue::show(&default.$field),
                    doc: concat!($($doc),+).trim_ascii_start(),
                }),+]
            }
        }
    };
}
#[cfg(test)]
mod tests {
    use crate::config::{Environment, Settings};
    use secrecy::ExposeSecret;

    #[test]
    fn white_space_at_the_ends_of_a_setting_is_cut_off() {
        let environment = Environment::default()
            .with("HOOKSWITCH_JWT_SECRET", format!(" {}\r\n", "s".repeat(40)))
            .with("HOOKSWITCH_BODY_BYTES_MAX", " 1000\n")
            .with("HOOKSWITCH_PUBLIC_URL", " \n");
        let settings = Settings::load(&environment).expect("good settings");
        let secret = settings.admin.jwt_secret.expect("a secret");
        assert_eq!(secret.expose_secret(), "s".repeat(40));
        assert_eq!(settings.receiver.body_bytes_max, 1000);
        assert_eq!(settings.receiver.public_url, None, "nothing but white space is not set");
    }

    #[test]
    fn a_setting_is_read_from_the_file_that_its_name_with_file_says() {
        let file = std::env::temp_dir().join(format!("hookswitch-{}.secret", std::process::id()));
        std::fs::write(&file, format!("{}\n", "s".repeat(40))).expect("written");
        let path = file.display().to_string();
        let by_file = Environment::default().with("HOOKSWITCH_JWT_SECRET_FILE", &path);
        let settings = Settings::load(&by_file).expect("good settings");
        let secret = settings.admin.jwt_secret.expect("a secret");
        assert_eq!(secret.expose_secret(), "s".repeat(40));

        let twice = by_file.with("HOOKSWITCH_JWT_SECRET", "t".repeat(40));
        let error = Settings::load(&twice).expect_err("refused").to_string();
        assert!(
            error.contains("HOOKSWITCH_JWT_SECRET_FILE: HOOKSWITCH_JWT_SECRET is set too"),
            "{error}"
        );
        std::fs::write(&file, " \n").expect("written");
        for (name, path, said) in [
            ("HOOKSWITCH_JWT_SECRET_FILE", &*path, "is empty"),
            (
                "HOOKSWITCH_JWT_SECRET_FILE",
                "/nowhere/at/all",
                "cannot read the file /nowhere/at/all",
            ),
            ("HOOKSWITCH_NO_SETTING_FILE", &*path, "there is no such setting"),
        ] {
            let error = Settings::load(&Environment::default().with(name, path))
                .expect_err("refused")
                .to_string();
            assert!(error.contains(said), "{error}");
        }
        std::fs::remove_file(&file).expect("removed");
        // A setting whose own name ends so is a path and stays one.
        let settings = Settings::load(&Environment::default().with("HOOKSWITCH_AMQP_CA_FILE", "/nowhere/ca.pem"));
        assert_eq!(
            settings.expect("good settings").queue.amqp_ca_file.as_deref(),
            Some("/nowhere/ca.pem")
        );
    }
}
