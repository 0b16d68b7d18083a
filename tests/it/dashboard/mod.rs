//! The dashboard: as browsers get it, and as people use it in a real Chromium, against `dev` with
//! its sandbox.

mod access;
mod first_view;
mod history;
mod integrations;
mod jobs;
mod live;
mod offline;
mod operator;
mod pictures;
mod routes;
mod served;
mod settings;
mod states;

use crate::support::{
    browser::{Browser, Driver, Look},
    client,
    dev::{BINARY, Dev, Directory, port_base},
};
use hookswitch::{
    admin::Role,
    cli::{
        dev_state::DevState,
        token::{Grant, mint_org_token},
    },
    config::AdminSettings,
    domain::{Clock, OrgId, SystemClock},
};
use serde_json::{Value, json};
use std::{process::Command, time::Duration};

/// `dev` in a process of its own, with a driver of browsers. A token of its own organisation is
/// `dev.get("admin_token")`.
struct Desk {
    dev: Dev,
    driver: Driver,
    directory: Directory,
}

impl Desk {
    async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With settings.
    async fn start_with(environment: &[(&str, &str)]) -> Self {
        Self::start_by(Command::new(BINARY), environment).await
    }

    /// With another build of the binary.
    async fn start_by(binary: Command, environment: &[(&str, &str)]) -> Self {
        let driver = Driver::start().await;
        let directory = Directory::new();
        let dev = Dev::start_by(binary, directory.path(), port_base(), &[], environment).await;
        Self { dev, driver, directory }
    }

    /// A window with a person signed in, at a path.
    async fn open(&self, token: &str, path: &str, look: Look) -> Browser<'_> {
        let browser = self.driver.open(&self.dev.get("admin"), look).await;
        browser.sign_in(token, path).await;
        browser
    }

    /// A window of the demo's owner.
    async fn owner(&self, path: &str, look: Look) -> Browser<'_> {
        self.open(&self.dev.get("admin_token"), path, look).await
    }

    /// A token of an organisation, signed as `dev` signs its own.
    fn token(&self, org: &str, role: Role) -> String {
        let state = DevState::load(self.directory.path()).expect("readable").expect("made");
        let settings = AdminSettings {
            jwt_secret: Some(state.jwt_secret.into()),
            ..AdminSettings::default()
        };
        let grant = Grant {
            subject: "a test",
            now: SystemClock.now(),
            valid_for: Duration::from_hours(1),
        };
        let org: OrgId = org.parse().expect("an id");
        mint_org_token(&settings, org, role, grant).expect("a token")
    }

    /// Another organisation of the same installation.
    async fn another(&self, name: &str) -> String {
        let request = client()
            .post(format!("{}/operator/organizations", self.dev.get("admin")))
            .bearer_auth(self.dev.get("operator_token"))
            .json(&json!({"name": name}));
        let made: Value = request.send().await.expect("an answer").json().await.expect("JSON");
        made["id"].as_str().expect("an id").to_owned()
    }

    /// Twilio refuses the numbers of the next texts, so that their actions are dead.
    async fn refuse_texts(&self, times: u32) {
        let refused = json!({"provider": "twilio", "method": "POST", "status": 400,
            "body": {"code": 21211, "message": "Invalid 'To'", "status": 400}, "times": times});
        self.sandbox("/_faults", &refused).await;
    }

    /// Tells the stand-ins something.
    async fn sandbox(&self, path: &str, body: &Value) {
        let request = client().post(format!("{}{path}", self.dev.get("sandbox"))).json(body);
        let answer = request.send().await.expect("the sandbox answers");
        assert_eq!(answer.status(), 201, "{path}");
    }
}

/// The card of a provider in a state.
fn card(provider: &str, state: &str) -> String {
    format!("integration-card[data-provider={provider}][data-state={state}]")
}
