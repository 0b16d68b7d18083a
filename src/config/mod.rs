//! Settings: read once at the start from `HOOKSWITCH_…` variables, all faults in one error.
//!
//! Every room may read its section. **Invariant:** an unknown setting is an error that names the
//! nearest known one. It is never ignored.

#[macro_use]
mod section;
mod admin;
mod check;
mod provider;
mod queue;
mod receiver;
mod store;
mod telemetry;
mod vault;
mod worker;

pub use admin::AdminSettings;
pub use provider::ProviderSettings;
pub use queue::QueueSettings;
pub use receiver::ReceiverSettings;
pub use section::{ConfigError, Environment, Fault, Setting, SettingValue};
pub use store::StoreSettings;
pub use telemetry::{LogFormat, TelemetrySettings};
pub use vault::VaultSettings;
pub use worker::WorkerSettings;

/// All sections.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub receiver: ReceiverSettings,
    pub queue: QueueSettings,
    pub store: StoreSettings,
    pub vault: VaultSettings,
    pub worker: WorkerSettings,
    pub provider: ProviderSettings,
    pub admin: AdminSettings,
    pub telemetry: TelemetrySettings,
}

impl Settings {
    /// Reads all sections from the environment.
    ///
    /// # Errors
    /// Every fault at once: unknown names with the nearest known one, values that do not parse,
    /// each with what is expected.
    pub fn load(environment: &Environment) -> Result<Self, ConfigError> {
        let (settings, faults) = Self::read(environment);
        if faults.is_empty() {
            Ok(settings)
        } else {
            Err(ConfigError { faults })
        }
    }

    /// Like [`Settings::load`], for a caller that has faults of its own to add. A setting that does
    /// not parse has its default.
    #[must_use]
    pub fn read(environment: &Environment) -> (Self, Vec<Fault>) {
        let mut faults = Vec::new();
        let environment = &environment.clone().read_files(&Self::all(), &mut faults);
        let settings = Self {
            receiver: ReceiverSettings::load(environment, &mut faults),
            queue: QueueSettings::load(environment, &mut faults),
            store: StoreSettings::load(environment, &mut faults),
            vault: VaultSettings::load(environment, &mut faults),
            worker: WorkerSettings::load(environment, &mut faults),
            provider: ProviderSettings::load(environment, &mut faults),
            admin: AdminSettings::load(environment, &mut faults),
            telemetry: TelemetrySettings::load(environment, &mut faults),
        };
        environment.check_names(&Self::all(), &mut faults);
        settings.worker.check(&mut faults);
        check::check(&settings, &mut faults);
        (settings, faults)
    }

    /// Every setting with its documentation, in the order of the sections. `docs/settings.md` and
    /// `schemas/config.json` are made from it.
    #[must_use]
    pub fn all() -> Vec<Setting> {
        [
            ReceiverSettings::settings(),
            QueueSettings::settings(),
            StoreSettings::settings(),
            VaultSettings::settings(),
            WorkerSettings::settings(),
            ProviderSettings::settings(),
            AdminSettings::settings(),
            TelemetrySettings::settings(),
        ]
        .concat()
    }
}
