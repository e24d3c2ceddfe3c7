//! Every fault of the lab, started by a click while customers order: on a stack of its own, or on a running one, whose
//! console is at `RUNNING_CONSOLE` (`scripts/click-faults`).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use e2e::{Api, Browser, Stack, eventually};
use serde_json::{Value, json};
use xtask::Replica;

use crate::{log_in_as, start_with};

/// What runs at the same time, at different programs: card and program. Together all cards of the page.
const ROUNDS: [&[(&str, &str)]; 4] = [
    &[
        ("slow", "order-service"),
        ("messages_duplicated", "payment-service"),
        ("pause", "user-service"),
        ("card_slow", "card-network"),
    ],
    &[
        ("errors", "order-service"),
        ("messages_reordered", "payment-service"),
        ("refuse", "user-service"),
        ("card_silent", "card-network"),
    ],
    &[
        ("lost_answers", "order-service"),
        ("messages_delayed", "payment-service"),
        ("database_locked", "user-service"),
        ("card_down", "card-network"),
    ],
    // The clock is ahead only on a database server.
    &[("kill", "order-service"), ("clock_ahead", "payment-service")],
];
/// A fault takes 20 s, and a killed program some more until it is found again.
const TIMEOUT: Duration = Duration::from_secs(90);
const CUSTOMERS: u32 = 10;

/// The answer of the console, with the session of the page.
const LAB: &str = "const done = arguments[arguments.length - 1]; \
                   fetch('/api/lab').then((answer) => answer.json()).then(done, () => done(null))";

/// The faults of the card network have cards of their own.
fn fault_of(card: &str) -> &str {
    match card {
        "card_down" => "refuse",
        "card_slow" => "slow",
        "card_silent" => "lost_answers",
        fault => fault,
    }
}

struct Site {
    /// `None` if it ran before.
    stack: Option<Stack>,
    console: Api,
    email: String,
    password: String,
}

impl Site {
    async fn open() -> Self {
        let variable = |name: &str| std::env::var(name).unwrap_or_else(|why| panic!("{name}: {why}"));
        if let Ok(base) = std::env::var("RUNNING_CONSOLE") {
            let [email, password] = ["ADMIN_EMAIL", "ADMIN_PASSWORD"].map(variable);
            let mut console = Api::local(0);
            console.base = base;
            return Self { stack: None, console, email, password };
        }
        let (stack, _) = start_with("on").await;
        let admin = stack.secrets().admin().unwrap();
        let [(_, email), (_, password)] = &admin[..] else { panic!("{admin:?}") };
        let (email, password, console) = (email.clone(), password.clone(), stack.direct("console"));
        Self { stack: Some(stack), console, email, password }
    }
}

/// A replica as the console describes it.
async fn replica(browser: &Browser, program: &str, id: &str) -> Option<Value> {
    let lab = browser.run_async(LAB).await;
    let mut replicas = lab["replicas"].as_array()?.iter();
    replicas.find(|one| one["program"] == program && one["replica"] == id).cloned()
}

async fn customers(browser: &Browser, count: u32) {
    let script = format!(
        "const slider = document.getElementById('customers-count'); slider.value = {count}; \
         slider.dispatchEvent(new Event('input')); slider.dispatchEvent(new Event('change'))"
    );
    browser.run(&script).await;
}

/// Chooses the first replica of the program, and clicks. Returns the replica's id.
async fn start(browser: &Browser, card: &str, program: &str) -> String {
    let option = format!("#where-{card} option[value^='{program}/']");
    browser.click(&option).await;
    let value = browser.run(&format!("return document.querySelector(\"{option}\").value")).await;
    browser.click(&format!("#start-{card}")).await;
    value.as_str().unwrap().split_once('/').unwrap().1.to_owned()
}

#[actix_web::test]
async fn every_fault_is_started_by_a_click_acts_ends_by_itself_and_breaks_no_promise() {
    let mut site = Site::open().await;
    let Some(browser) = Browser::start(&site.console).await else { return };
    browser.open("/lab").await;
    log_in_as(&browser, &site.email, &site.password).await;
    browser.find("#start-card_silent").await;
    let cards = "return [...document.querySelectorAll('.fault')].map((card) => card.dataset.card)";
    let cards: BTreeSet<String> = serde_json::from_value(browser.run(cards).await).unwrap();
    let known: BTreeSet<String> = ROUNDS.concat().into_iter().map(|(card, _)| card.to_owned()).collect();
    // SQLite and PostgreSQL differ in one fault.
    assert!(cards.is_subset(&known) && cards.len() + 1 >= known.len(), "{cards:?}");
    // Wide enough for three columns.
    browser.resize(1520, 1000).await;
    customers(&browser, CUSTOMERS).await;
    let orders =
        "return Number(/\\d+/.exec(document.getElementById('customers-figures').textContent)?.[0] ?? 0)";
    eventually("customers order", TIMEOUT, async || {
        (browser.run(orders).await.as_u64()? >= 20).then_some(())
    })
    .await;
    for round in ROUNDS {
        let begun = Instant::now();
        let mut running = Vec::new();
        for (card, program) in round.iter().filter(|(card, _)| cards.contains(*card)) {
            let before = browser.run_async(LAB).await;
            let id = start(&browser, card, program).await;
            if *card != "kill" {
                browser.shows(&format!("[data-card={card}] [data-running='{id}']"), "ends").await;
            }
            running.push((*card, *program, id, before));
        }
        browser.run("scrollTo(0, 0)").await;
        browser.picture(&format!("lab-{}", round[0].0)).await;
        for (card, program, id, before) in running {
            if card == "kill"
                && let Some(stack) = &mut site.stack
            {
                // The console sorts the replicas by name, which ends with the port.
                let is_killed = |one: &&mut Replica| id.ends_with(&format!("-{}", one.port));
                let killed = stack.replicas(program).iter().position(is_killed).unwrap();
                let ended = eventually("the process ends", TIMEOUT, async || {
                    stack.replicas(program)[killed].try_wait().unwrap()
                });
                assert_eq!(ended.await.code(), Some(137));
                stack.restart(program, killed);
            }
            let acted = eventually(&format!("{card} acts and ends"), TIMEOUT, async || {
                let now = replica(&browser, program, &id).await?;
                let is_over = now["running"] == json!([]) && now["offers"] != json!([]);
                let times = match card == "kill" {
                    true => {
                        let mut all = before["replicas"].as_array()?.iter();
                        let then = all.find(|one| one["program"] == program && one["replica"] == *id)?;
                        u64::from(then["started_at"] != now["started_at"])
                    }
                    false => now["injected"][fault_of(card)].as_u64()?,
                };
                (is_over && times > 0).then_some(times)
            })
            .await;
            println!("{card} at {program} {id}: {acted} times, over after {:.1?}", begun.elapsed());
        }
    }
    customers(&browser, 0).await;
    let invariants = "return [...document.querySelectorAll('[data-invariant]')].map(({ dataset }) => \
         [dataset.invariant, dataset.state])";
    eventually("every promise holds", Duration::from_secs(120), async || {
        let invariants = browser.run(invariants).await;
        let all = invariants.as_array()?;
        (all.len() >= 20 && all.iter().all(|invariant| invariant[1] == "holds")).then_some(())
    })
    .await;
}
