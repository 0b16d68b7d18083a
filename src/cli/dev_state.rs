//! The ids and secrets that `dev` makes once and prints at every start: `dev.json` in the data
//! directory, mode 0600.

use crate::{
    cli::samples::SampleValues,
    domain::{EndpointId, OrgId},
};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::{io::Write, os::unix::fs::OpenOptionsExt, path::Path};

/// The file, and with `--format json` the line that scripts read. Its secrets open only a sandbox.
/// They are not for logs, so there is no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
pub struct DevState {
    pub ingress: String,
    pub admin: String,
    pub operations: String,
    pub sandbox: String,
    pub admin_token: String,
    pub operator_token: String,
    pub org_id: OrgId,
    pub assistant_id: String,
    pub phone_number: String,
    pub vapi_secret: String,
    pub twilio_account_sid: String,
    pub twilio_auth_token: String,
    pub customer_number: String,
    /// Signs the two tokens; needed again at the next start.
    pub jwt_secret: String,
    pub operator_jwt_secret: String,
    /// The private key that the sandbox Vapi takes.
    pub vapi_api_key: String,
    /// Set when the demo organisation is complete.
    pub is_seeded: bool,
}

impl DevState {
    pub const FILE: &str = "dev.json";

    /// `None` when nothing was made in this directory yet.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn load(directory: &Path) -> anyhow::Result<Option<Self>> {
        let path = directory.join(Self::FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        serde_json::from_str(&text).map(Some).with_context(|| {
            format!(
                "{} is not what `hookswitch dev` wrote; delete the data directory to begin again",
                path.display()
            )
        })
    }

    /// For the commands that need a running `dev`: `send`, `bench load`.
    ///
    /// # Errors
    /// Nothing was made in this directory yet, or the file cannot be read.
    pub fn load_started(directory: &Path) -> anyhow::Result<Self> {
        Self::load(directory)?.with_context(|| {
            format!(
                "{} is not there: start `hookswitch dev` first (or name its directory with --data-dir)",
                directory.join(Self::FILE).display()
            )
        })
    }

    /// The demo's Vapi endpoint has the organisation's id, so that `send` knows its URL without a
    /// look-up.
    #[must_use]
    pub const fn vapi_endpoint_id(&self) -> EndpointId {
        EndpointId::from_uuid(*self.org_id.as_uuid())
    }

    /// The values that fill the samples.
    #[must_use]
    pub fn sample_values(&self) -> SampleValues {
        SampleValues {
            assistant_id: self.assistant_id.clone(),
            phone_number: self.phone_number.clone(),
            customer_number: self.customer_number.clone(),
            twilio_account_sid: self.twilio_account_sid.clone(),
        }
    }

    /// Writes a new file and renames it, so that a reader sees the old state or the new one.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn save(&self, directory: &Path) -> anyhow::Result<()> {
        let path = directory.join(Self::FILE);
        let beside = path.with_extension("json.new");
        let write = || -> std::io::Result<()> {
            let mut file = std::fs::OpenOptions::new()
                .create(true)
                .write(true)
                .truncate(true)
                .mode(0o600)
                .open(&beside)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()?;
            std::fs::rename(&beside, &path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// The line of `--format json`: the values for scripts, in the order of the documentation, and
    /// the link of this start that signs in.
    #[must_use]
    pub fn line(&self, sign_in: &str, keys: serde_json::Value) -> String {
        let mut value = serde_json::to_value(self).expect("a struct of texts is JSON");
        let object = value.as_object_mut().expect("a struct is an object");
        for ours in ["jwt_secret", "operator_jwt_secret", "vapi_api_key", "is_seeded"] {
            object.remove(ours);
        }
        object.insert("sign_in".to_owned(), sign_in.into());
        object.insert("keys".to_owned(), keys);
        value.to_string()
    }
}

/// `bytes` random bytes in hex.
///
/// # Errors
/// The system gives no randomness.
pub(crate) fn random_hex(bytes: usize) -> anyhow::Result<String> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random).map_err(|e| anyhow::anyhow!("no randomness from the system: {e}"))?;
    Ok(hex::encode(random))
}
