//! The end-to-end count: answers to senders against effects at the providers.

use super::world::{PATIENCE, World, until};
use hookswitch::{domain::Provider, sandbox::Content};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    process::Command,
    time::{Duration, Instant},
};

/// The counts of a case; a line of the table.
#[derive(Clone, Default, Debug)]
pub struct Counts {
    pub sent: u64,
    pub taken: u64,
    pub effects: u64,
    pub attempts: u64,
    pub look_ups: u64,
    /// Remarks.
    pub note: String,
}

impl Counts {
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    pub fn add(&mut self, more: &Self) {
        self.sent += more.sent;
        self.taken += more.taken;
        self.effects += more.effects;
        self.attempts += more.attempts;
        self.look_ups += more.look_ups;
        if !more.note.is_empty() {
            self.note.clone_from(&more.note);
        }
    }
}

/// States of actions that have something before them.
const OPEN: [&str; 4] = ["pending", "running", "waiting", "unknown"];

impl World {
    /// Waits until nothing is left to do, then counts and judges. The process has to run.
    pub async fn final_counts(&self) -> Counts {
        let begun = Instant::now();
        self.quiet().await;
        let took = begun.elapsed();
        let mut counts = self.judge().await;
        counts.note = format!("quiet after {:.1} s", took.as_secs_f64());
        counts
    }

    /// Nothing is in the queue, nothing is open in the ledger, and every wanted event that was
    /// taken has an SMS. A long backlog may take its time while it gets shorter.
    pub async fn quiet(&self) {
        // Each SMS brings callbacks into the queue, so that the queue first gets longer.
        let mut least = (usize::MAX, f64::MAX);
        let mut shorter_at = Instant::now();
        loop {
            let missing = self.missing_calls().len();
            let queued = self.metric("hookswitch_queue_events").await;
            if missing == 0 && queued.is_some_and(|queued| queued <= 0.0) && self.nothing_is_open().await == Some(true)
            {
                return;
            }
            let left = queued.map(|queued| (missing, queued));
            if let Some(left) = left.filter(|left| *left < least) {
                (least, shorter_at) = (left, Instant::now());
            }
            assert!(
                shorter_at.elapsed() < PATIENCE,
                "{} {}: the backlog got no shorter for {PATIENCE:?}",
                self.label(),
                self.missing()
            );
            // A look at many calls takes time from the process that works on them.
            let pause = if missing > 100 { 500 } else { 20 };
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// `None`: the process does not answer.
    async fn nothing_is_open(&self) -> Option<bool> {
        for org in &self.orgs {
            for state in OPEN {
                let page = self
                    .get_as(&org.token, &format!("/api/actions?limit=1&state={state}"))
                    .await?;
                if page["data"].as_array().is_none_or(|data| !data.is_empty()) {
                    return Some(false);
                }
            }
        }
        Some(true)
    }

    /// The accounts that sent a text, by its call.
    pub fn sms(&self) -> HashMap<String, Vec<String>> {
        let mut by_call: HashMap<String, Vec<String>> = HashMap::new();
        for message in self.sandbox.messages() {
            let call = message.body.strip_prefix("call ").unwrap_or(&message.body).to_owned();
            by_call.entry(call).or_default().push(message.account_sid);
        }
        by_call
    }

    fn missing_calls(&self) -> Vec<String> {
        let sms = self.sms();
        self.load
            .calls()
            .into_iter()
            .filter(|(call, sent)| sent.is_wanted && sent.taken > 0 && !sms.contains_key(call))
            .map(|(call, _)| call)
            .collect()
    }

    fn missing(&self) -> String {
        let missing = self.missing_calls();
        format!(
            "{} without their SMS, such as {:?}; the log ends: {}",
            missing.len(),
            &missing[..missing.len().min(3)],
            self.log_end()
        )
    }

    async fn judge(&self) -> Counts {
        let (calls, sms) = (self.load.calls(), self.sms());
        let label = self.label();
        // Each taken event acts exactly once. An event without a 200 may have acted once, too.
        let lost: Vec<_> = calls
            .iter()
            .filter(|(call, sent)| sent.is_wanted && sent.taken > 0 && !sms.contains_key(*call))
            .collect();
        assert!(lost.is_empty(), "{label}: lost {}", lost.len());
        let doubled: Vec<_> = sms
            .iter()
            .filter(|(_, accounts)| accounts.len() > 1)
            .map(|(call, _)| call)
            .collect();
        assert!(doubled.is_empty(), "{label}: sent twice: {doubled:?}");
        for (call, accounts) in &sms {
            let sent = calls
                .get(call)
                .unwrap_or_else(|| panic!("{label}: an SMS of a call that nobody sent: {call}"));
            assert!(sent.is_wanted, "{label}: an SMS that no rule wants: {call}");
            // By its own organisation's account and no other.
            assert_eq!(
                accounts[0], self.orgs[sent.org].account,
                "{label}: {call} went out by another organisation's account"
            );
        }
        self.judge_posts(&label, &calls);
        assert_eq!(
            self.load.without_retry_after(),
            0,
            "{label}: refusals without Retry-After"
        );
        self.judge_secrets(&label);
        let (mut attempts, mut look_ups) = (0, 0);
        for org in &self.orgs {
            for action in self.actions(&org.token).await {
                attempts += action["attempts_counted"].as_u64().unwrap_or(0);
                look_ups += action["look_ups"].as_u64().unwrap_or(0);
            }
        }
        let sent = self.load.answers().values().sum::<u64>() + self.load.unanswered();
        Counts {
            sent,
            taken: self.load.taken().1,
            effects: sms.len() as u64,
            attempts,
            look_ups,
            note: String::new(),
        }
    }

    /// `http.post` has a key: the other side may see it again, under the same key.
    fn judge_posts(&self, label: &str, calls: &HashMap<String, super::load::Sent>) {
        let mut keys: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for request in self.sandbox.requests(Provider::Http) {
            let Content::Json(body) = &request.content else {
                continue;
            };
            let call = body["data"]["call"]
                .as_str()
                .or_else(|| body["call"].as_str())
                .unwrap_or_default()
                .to_owned();
            let key = request.headers["webhook-id"].as_str().unwrap_or_default().to_owned();
            assert!(
                request.path.ends_with(&self.orgs[0].id),
                "{label}: a post to another organisation's URL"
            );
            assert_eq!(
                calls.get(&call).map(|sent| sent.org),
                Some(0),
                "{label}: a post of another organisation's call {call:?}"
            );
            keys.entry(call).or_default().insert(key);
        }
        for (call, sent) in calls
            .iter()
            .filter(|(_, sent)| sent.org == 0 && sent.is_wanted && sent.taken > 0)
        {
            let count = keys.get(call).map_or(0, BTreeSet::len);
            assert_eq!(
                count, 1,
                "{label}: {call} ({} answers of 200) was posted under {count} keys",
                sent.taken
            );
        }
    }

    /// No secret stands in the clear in any file.
    fn judge_secrets(&self, label: &str) {
        let secrets: Vec<&str> = self
            .orgs
            .iter()
            .flat_map(|org| [org.secret.as_str(), org.auth_token.as_str()])
            .collect();
        let patterns = secrets.iter().flat_map(|secret| ["-e", secret]);
        let found = Command::new("grep")
            .args(["-rlaF"])
            .args(patterns)
            .arg(self.place.path())
            .output()
            .expect("grep is part of every system");
        assert!(
            found.stdout.is_empty(),
            "{label}: secrets in the clear: {}",
            String::from_utf8_lossy(&found.stdout)
        );
    }

    /// All actions of an organisation, by the API.
    pub async fn actions(&self, token: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/api/actions?limit=200{cursor}");
            let page = until(|| self.label(), "the admin API", || self.get_as(token, &path)).await;
            all.extend(page["data"].as_array().expect("a list").iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return all,
            }
        }
    }
}
