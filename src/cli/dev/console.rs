//! The dev console: one line for each event, action and rejection of the demo organisation as it
//! changes.

use crate::cli::dev_state::DevState;
use crate::store::rejections::RejectionFilter;
use crate::{
    domain::{ActionId, ActionKind, ActionState, EventId, OrgId},
    store::{
        Store,
        history::{ActionFilter, EventFilter, StoredAction},
    },
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// How often the console looks: as fast as a person can read.
const PERIOD: Duration = Duration::from_millis(250);
/// Most rows of a round; of a flood it shows the newest.
const ROWS: u32 = 50;

pub(super) struct Console {
    store: Arc<dyn Store>,
    org: OrgId,
    /// Asks the sandbox Twilio for the messages of succeeded actions.
    client: reqwest::Client,
    demo: DevState,
    newest_event: Option<EventId>,
    newest_rejection: Option<uuid::Uuid>,
    /// Actions that may still change.
    shown: HashMap<ActionId, ActionState>,
}

impl Console {
    pub(super) fn new(store: Arc<dyn Store>, demo: DevState) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(2))
            .build()?;
        Ok(Self {
            store,
            org: demo.org_id,
            client,
            demo,
            newest_event: None,
            newest_rejection: None,
            shown: HashMap::new(),
        })
    }

    /// Prints until `stop`, from now on.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        self.look(false).await;
        while stop.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_some() {
            self.look(true).await;
        }
    }

    /// A look that fails prints nothing, because the console is no monitor.
    async fn look(&mut self, print: bool) {
        if let Ok(events) = self
            .store
            .list_events(self.org, EventFilter::default(), None, ROWS)
            .await
        {
            let fresh: Vec<_> = events
                .into_iter()
                .take_while(|event| Some(event.id) > self.newest_event)
                .collect();
            self.newest_event = fresh.first().map(|event| event.id).or(self.newest_event);
            for event in fresh.iter().rev().filter(|_| print) {
                println!(
                    "event   {}  {}  {} bytes",
                    event.event_type,
                    short(&event.id.to_string()),
                    event.body_bytes
                );
            }
        }
        if let Ok(actions) = self
            .store
            .list_actions(self.org, ActionFilter::default(), None, ROWS)
            .await
        {
            let listed: BTreeSet<ActionId> = actions.iter().map(|action| action.id).collect();
            for action in actions.iter().rev() {
                if self.shown.insert(action.id, action.state) != Some(action.state) && print {
                    println!("action  {}", describe(action));
                    if action.kind.known() == Some(ActionKind::TwilioSendSms) && action.state == ActionState::Succeeded
                    {
                        self.show_sms(action.provider_ref.as_deref().unwrap_or_default()).await;
                    }
                }
            }
            self.shown.retain(|id, _| listed.contains(id));
        }
        if let Ok(rejections) = self
            .store
            .list_rejections(None, RejectionFilter::default(), None, ROWS)
            .await
        {
            let fresh: Vec<_> = rejections
                .into_iter()
                .take_while(|rejection| Some(rejection.id) > self.newest_rejection)
                .collect();
            self.newest_rejection = fresh.first().map(|rejection| rejection.id).or(self.newest_rejection);
            for rejection in fresh.iter().rev().filter(|_| print) {
                println!(
                    "refused {}  {}  {}",
                    rejection.source, rejection.status, rejection.cause
                );
            }
        }
    }

    /// Prints the message as the sandbox Twilio keeps it.
    async fn show_sms(&self, sid: &str) {
        let account = &self.demo.twilio_account_sid;
        let url = format!(
            "{}/2010-04-01/Accounts/{account}/Messages/{sid}.json",
            self.demo.sandbox
        );
        let Ok(answer) = self
            .client
            .get(url)
            .basic_auth(account, Some(&self.demo.twilio_auth_token))
            .send()
            .await
        else {
            return;
        };
        if let Ok(message) = answer.json::<serde_json::Value>().await {
            println!(
                "sms     {} → {}: {}",
                message["from"].as_str().unwrap_or("?"),
                message["to"].as_str().unwrap_or("?"),
                message["body"]
            );
        }
    }
}

fn describe(action: &StoredAction) -> String {
    let mut line = format!("{}  {}  {}", action.kind, short(&action.id.to_string()), action.state);
    if let Some(cause) = action.cause {
        line.extend([": ", cause.as_str()]);
    }
    if let Some(provider_ref) = &action.provider_ref {
        line.extend([" as ", provider_ref]);
    }
    if let Some(detail) = action
        .detail
        .as_deref()
        .filter(|text| !text.is_empty() && action.state != ActionState::Succeeded)
    {
        line.extend([" (", detail, ")"]);
    }
    line
}

/// The end of an id: enough to find it again, and the part that differs.
fn short(id: &str) -> &str {
    id.get(id.len().saturating_sub(8)..).unwrap_or(id)
}
