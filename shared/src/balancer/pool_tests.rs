//! Tests of the pool's rules.

use std::collections::BTreeMap;

use actix_web::http::StatusCode;
use proptest::prelude::*;
use proptest::strategy::Strategy as _;

use super::*;
use crate::balancer::{Health, Maintenance, RequestOutcome, Strategy};

const FAST: Duration = Duration::from_millis(5);

fn instance(id: &str) -> Instance {
    Instance::new(id, &format!("http://127.0.0.1:1/{id}"))
}

fn pool(size: usize, now: Instant) -> Arc<Pool> {
    let pool = Pool::new("a-service", Settings::default());
    pool.update(&instances(size), now);
    pool
}

fn instances(size: usize) -> Vec<Instance> {
    (0..size).map(|index| instance(&index.to_string())).collect()
}

fn answered(status: StatusCode) -> RequestOutcome {
    RequestOutcome::Answered { status, retry_after: None }
}

fn ok() -> RequestOutcome {
    answered(StatusCode::OK)
}

/// How many of `requests` each replica gets.
fn shares(pool: &Arc<Pool>, picker: &Picker, requests: usize, now: Instant) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..requests {
        let mut picked = pool.pick(picker, None, &[], now).unwrap();
        picked.record(ok(), now + FAST);
        *shares.entry(picked.instance().id.clone()).or_default() += 1;
    }
    shares
}

/// Makes requests to the replica `id` fail with `outcome`, `times` times.
fn fail(pool: &Arc<Pool>, id: &str, outcome: RequestOutcome, times: usize, now: Instant) {
    let mut left = times;
    while left > 0 {
        let mut picked = pool.pick(&Picker::new(Strategy::Random), None, &[], now).unwrap();
        if picked.instance().id == id {
            picked.record(outcome, now);
            left -= 1;
        }
    }
}

fn health(pool: &Pool, id: &str, now: Instant) -> Health {
    pool.snapshot(now).into_iter().find(|seen| seen.instance.id == id).unwrap().health
}

#[test]
fn round_robin_is_exactly_even() {
    let now = Instant::now();
    let shares = shares(&pool(3, now), &Picker::new(Strategy::RoundRobin), 600, now);
    assert!(shares.values().all(|share| *share == 200), "{shares:?}");
}

#[test]
fn random_is_even_within_four_standard_deviations() {
    let now = Instant::now();
    let shares = shares(&pool(2, now), &Picker::new(Strategy::Random), 600, now);
    let sigma = (600.0f64 * 0.25).sqrt();
    assert!(shares.values().all(|share| (*share as f64 - 300.0).abs() < 4.0 * sigma), "{shares:?}");
}

#[test]
fn least_connections_avoids_busy_replicas_and_takes_turns_among_equals() {
    let now = Instant::now();
    let (pool, picker) = (pool(2, now), Picker::new(Strategy::LeastConnections));
    assert_eq!(shares(&pool, &picker, 10, now).len(), 2);
    let busy = pool.pick(&picker, None, &[], now).unwrap();
    let shares = shares(&pool, &picker, 10, now);
    assert_eq!(shares.len(), 1);
    assert!(!shares.contains_key(&busy.instance().id));
}

#[test]
fn a_replica_in_maintenance_gets_nothing_until_it_ends() {
    let now = Instant::now();
    let (pool, picker) = (pool(3, now), Picker::new(Strategy::RoundRobin));
    let later = now + Duration::from_secs(60);
    assert!(pool.set_maintenance("0", Some(Maintenance::Until(later)), now));
    assert!(pool.set_maintenance("1", Some(Maintenance::Indefinite), now));
    assert!(!pool.set_maintenance("no replica", Some(Maintenance::Indefinite), now));
    assert_eq!(shares(&pool, &picker, 30, now), BTreeMap::from([("2".to_owned(), 30)]));
    let seen = pool.snapshot(now);
    let told: Vec<_> = seen.iter().map(|one| (one.health, one.reason, one.until)).collect();
    assert_eq!(
        told,
        [
            (Health::Ejected, Some("ejected_by_admin"), Some(later)),
            (Health::Draining, Some("drained_by_admin"), None),
            (Health::Healthy, None, None),
        ]
    );
    pool.end_expired_maintenance(later - Duration::from_millis(1));
    assert_eq!(shares(&pool, &picker, 30, later).len(), 1);
    pool.end_expired_maintenance(later);
    assert_eq!(health(&pool, "0", later), Health::Healthy);
    assert_eq!(health(&pool, "1", later), Health::Draining, "until the admin ends it");
    pool.set_maintenance("1", None, later);
    assert_eq!(shares(&pool, &picker, 300, later + Duration::from_secs(60)).len(), 3);
}

#[test]
fn when_no_other_replica_is_left_one_in_maintenance_serves() {
    let now = Instant::now();
    let (pool, picker) = (pool(2, now), Picker::new(Strategy::RoundRobin));
    assert!(["0", "1"].iter().all(|id| pool.set_maintenance(id, Some(Maintenance::Indefinite), now)));
    assert_eq!(shares(&pool, &picker, 10, now).values().sum::<usize>(), 10);
}

#[test]
fn weighted_round_robin_gives_shares_by_weight() {
    let now = Instant::now();
    let pool = Pool::new("a-service", Settings::default());
    let heavy = instance("heavy").with("weight", "3");
    pool.update(&[heavy, instance("light")], now);
    let shares = shares(&pool, &Picker::new(Strategy::WeightedRoundRobin), 400, now);
    assert_eq!((shares["heavy"], shares["light"]), (300, 100));
}

#[test]
fn p2c_prefers_fast_replicas_and_a_fast_error_does_not_count_as_fast() {
    let now = Instant::now();
    let (pool, picker) = (pool(2, now), Picker::new(Strategy::P2cEwma));
    let mut bad_share = 0;
    for _ in 0..100 {
        let mut picked = pool.pick(&picker, None, &[], now).unwrap();
        if picked.instance().id == "0" {
            bad_share += 1;
            let at = now + Duration::from_micros(10);
            picked.record(answered(StatusCode::INTERNAL_SERVER_ERROR), at);
        } else {
            picked.record(ok(), now + FAST);
        }
    }
    assert!(bad_share < 10, "{bad_share}");
}

#[test]
fn consistent_hash_keeps_a_key_on_its_replica_and_moves_few_when_one_leaves() {
    let now = Instant::now();
    let (pool, picker) = (pool(4, now), Picker::new(Strategy::ConsistentHash));
    let owners = |pool: &Arc<Pool>| -> Vec<String> {
        (0..200)
            .map(|key| {
                let picked = pool.pick(&picker, Some(&format!("key {key}")), &[], now).unwrap();
                picked.instance().id.clone()
            })
            .collect()
    };
    let before = owners(&pool);
    assert_eq!(before, owners(&pool));
    pool.update(&instances(3), now);
    let moved = before.iter().zip(owners(&pool)).filter(|(owner, after)| *owner != after).count();
    let orphans = before.iter().filter(|owner| *owner == "3").count();
    assert_eq!(moved, orphans, "only the keys of the one that left move");
    assert!((20..=90).contains(&orphans), "{orphans}");
}

#[test]
fn p2c_treats_a_new_replica_as_fast_as_the_others() {
    let now = Instant::now();
    let (pool, picker) = (pool(1, now), Picker::new(Strategy::P2cEwma));
    shares(&pool, &picker, 1, now);
    pool.update(&instances(2), now);
    let picked_replicas: Vec<_> = (0..100).map(|_| pool.pick(&picker, None, &[], now).unwrap()).collect();
    let newcomers = picked_replicas.iter().filter(|picked| picked.instance().id == "1").count();
    assert!((40..=60).contains(&newcomers), "about half, not all: {newcomers}");
}

#[test]
fn an_unreachable_replica_is_ejected_immediately_probed_and_readmitted_with_a_slow_start() {
    let began = Instant::now();
    let (pool, picker) = (pool(2, began), Picker::new(Strategy::RoundRobin));
    let now = began + Duration::from_secs(10);
    fail(&pool, "0", RequestOutcome::Unreachable, 1, now);
    assert_eq!(health(&pool, "0", now), Health::Ejected);
    assert_eq!(shares(&pool, &picker, 10, now).len(), 1);

    let later = now + Duration::from_secs(2);
    let mut probe = pool.pick(&picker, None, &[], later).unwrap();
    assert!(probe.probing && probe.instance().id == "0");
    assert_eq!(pool.pick(&picker, None, &[], later).unwrap().instance().id, "1", "one probe at a time");
    probe.record(ok(), later);
    drop(probe);
    let share = shares(&pool, &picker, 1000, later)["0"];
    assert!((20..300).contains(&share), "a tenth of what the other gets, about: {share}");
    let settled = later + Duration::from_secs(11);
    assert_eq!(shares(&pool, &picker, 1000, settled)["0"], 500);
}

#[test]
fn five_failures_in_a_row_eject_and_a_late_success_does_not_readmit() {
    let now = Instant::now();
    let (pool, picker) = (pool(2, now), Picker::new(Strategy::RoundRobin));
    let mut picked_replicas: Vec<_> = (0..12).map(|_| pool.pick(&picker, None, &[], now).unwrap()).collect();
    let mut bad: Vec<_> = picked_replicas.iter_mut().filter(|picked| picked.instance().id == "0").collect();
    let later = now + FAST;
    for (times, picked) in bad.iter_mut().take(5).enumerate() {
        assert_eq!(health(&pool, "0", now), Health::Healthy, "{times}");
        picked.record(answered(StatusCode::BAD_GATEWAY), later);
    }
    assert_eq!(health(&pool, "0", now), Health::Ejected);
    bad[5].record(ok(), later + FAST);
    assert_eq!(health(&pool, "0", now), Health::Ejected, "it was sent before the ejection");
}

#[test]
fn a_new_replica_starts_slowly_only_beside_an_established_one() {
    let began = Instant::now();
    let (pool, picker) = (pool(1, began), Picker::new(Strategy::RoundRobin));
    let now = began + Duration::from_secs(9);
    pool.update(&instances(2), now);
    assert_eq!(shares(&pool, &picker, 100, now)["1"], 50, "a stack that starts shares evenly at once");
    let now = began + Duration::from_secs(10);
    pool.update(&instances(3), now);
    let share = shares(&pool, &picker, 3000, now)["2"];
    assert!((50..500).contains(&share), "a tenth of a third, about: {share}");
}

#[test]
fn only_failures_of_a_replica_count_against_it() {
    let now = Instant::now();
    let pool = pool(2, now);
    fail(&pool, "0", RequestOutcome::CallerFault, 50, now);
    fail(&pool, "0", RequestOutcome::StaleConnection, 50, now);
    assert_eq!(health(&pool, "0", now), Health::Healthy);
    assert_eq!(pool.snapshot(now)[0].latency, Duration::ZERO);
}

#[tokio::test]
async fn a_probe_that_succeeds_ends_the_wait_for_an_available_replica() {
    let now = Instant::now();
    let (pool, picker) = (pool(2, now), Picker::new(Strategy::RoundRobin));
    fail(&pool, "0", RequestOutcome::Unreachable, 1, now);
    (0..3).for_each(|_| pool.report_check("1", CheckResult::Refused, now));
    assert!(!pool.is_available());
    let later = now + Duration::from_secs(2);
    let probe = async {
        let mut probe = pool.pick(&picker, None, &[], later).unwrap();
        assert!(probe.probing && probe.instance().id == "0");
        probe.record(ok(), later);
    };
    let began = Instant::now();
    tokio::join!(pool.wait_until_available(Duration::from_secs(60)), probe);
    assert!(pool.is_available() && began.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_replica_whose_checks_fail_is_not_probed_with_requests() {
    let now = Instant::now();
    let (pool, picker) = (pool(2, now), Picker::new(Strategy::RoundRobin));
    fail(&pool, "0", RequestOutcome::Unreachable, 1, now);
    (0..3).for_each(|_| pool.report_check("0", CheckResult::Refused, now));
    let later = now + Duration::from_secs(60);
    assert_eq!(shares(&pool, &picker, 10, later).len(), 1);
    (0..2).for_each(|_| pool.report_check("0", CheckResult::Passed, later));
    assert!(pool.pick(&picker, None, &[], later).unwrap().probing);
}

#[test]
fn a_draining_replica_gets_no_more_requests() {
    let now = Instant::now();
    let (pool, picker) = (pool(3, now), Picker::new(Strategy::RoundRobin));
    pool.report_check("0", CheckResult::Draining, now);
    assert_eq!(health(&pool, "0", now), Health::Draining);
    assert_eq!(shares(&pool, &picker, 10, now).len(), 2);
    pool.report_check("1", CheckResult::Draining, now);
    assert_eq!(shares(&pool, &picker, 10, now).len(), 1, "draining replicas do not cause a panic");
    pool.report_check("2", CheckResult::Draining, now);
    assert_eq!(shares(&pool, &picker, 9, now).len(), 3, "if all are draining, all are used");
}

#[test]
fn unchecked_new_replicas_do_not_cause_a_panic() {
    let now = Instant::now();
    let settings = Settings { health_source: HealthSource::ActiveChecks, ..Settings::default() };
    let pool = Pool::new("a-service", settings);
    pool.update(&instances(3), now);
    pool.report_check("0", CheckResult::Passed, now);
    assert_eq!(shares(&pool, &Picker::new(Strategy::RoundRobin), 10, now)["0"], 10);
}

#[test]
fn a_shrinking_pool_readmits_ejected_replicas() {
    let now = Instant::now();
    let pool = pool(4, now);
    fail(&pool, "0", RequestOutcome::Unreachable, 1, now);
    fail(&pool, "1", RequestOutcome::Unreachable, 1, now + FAST);
    assert_eq!([health(&pool, "0", now), health(&pool, "1", now)], [Health::Ejected; 2]);
    pool.update(&instances(2), now);
    assert_eq!([health(&pool, "0", now), health(&pool, "1", now)], [Health::Healthy, Health::Ejected]);
    pool.update(&instances(2)[1..], now);
    assert_eq!(health(&pool, "1", now), Health::Healthy, "the only one is never ejected");
}

#[test]
fn an_inconclusive_probe_is_repeated() {
    let now = Instant::now();
    let (pool, picker) = (pool(2, now), Picker::new(Strategy::RoundRobin));
    fail(&pool, "0", RequestOutcome::Unreachable, 1, now);
    let later = now + Duration::from_secs(2);
    drop(pool.pick(&picker, None, &[], later).unwrap());
    let mut again = pool.pick(&picker, None, &[], later).unwrap();
    assert!(again.probing);
    again.record(RequestOutcome::CallerFault, later);
    drop(again);
    assert!(pool.pick(&picker, None, &[], later).unwrap().probing);
}

#[test]
fn back_pressure_diverts_requests_but_never_ejects() {
    let now = Instant::now();
    let (pool, picker) = (pool(2, now), Picker::new(Strategy::RoundRobin));
    let busy = RequestOutcome::Answered {
        status: StatusCode::SERVICE_UNAVAILABLE,
        retry_after: Some(Duration::from_secs(2)),
    };
    fail(&pool, "0", busy, 1, now);
    assert_eq!(health(&pool, "0", now), Health::Healthy);
    assert_eq!(shares(&pool, &picker, 10, now).len(), 1);
    assert_eq!(shares(&pool, &picker, 10, now + Duration::from_secs(3)).len(), 2);
}

#[test]
fn the_only_replica_is_never_ejected() {
    let now = Instant::now();
    let pool = pool(1, now);
    fail(&pool, "0", RequestOutcome::Unreachable, 10, now);
    assert_eq!(health(&pool, "0", now), Health::Healthy);
}

#[test]
fn with_less_than_half_available_the_whole_pool_is_used_and_refusing_replicas_come_last() {
    let now = Instant::now();
    let pool = Pool::new("a-service", Settings::default());
    pool.update(&instances(4), now);
    fail(&pool, "0", RequestOutcome::Unreachable, 1, now);
    for id in ["1", "2"] {
        (0..3).for_each(|_| pool.report_check(id, CheckResult::Failed, now));
    }
    let shares = shares(&pool, &Picker::new(Strategy::RoundRobin), 300, now);
    assert_eq!(shares.keys().collect::<Vec<_>>(), ["1", "2", "3"], "the refused one is left out");
}

#[test]
fn three_failed_checks_make_unhealthy_and_two_passed_ones_healthy() {
    let now = Instant::now();
    let pool = pool(2, now);
    let after = |report| {
        pool.report_check("0", report, now);
        health(&pool, "0", now)
    };
    assert_eq!(after(CheckResult::Failed), Health::Healthy);
    assert_eq!(after(CheckResult::Failed), Health::Healthy);
    assert_eq!(after(CheckResult::Failed), Health::Unhealthy);
    assert_eq!(after(CheckResult::Passed), Health::Unhealthy);
    assert_eq!(after(CheckResult::Passed), Health::Healthy);
}

#[test]
fn an_untrusted_new_replica_waits_for_its_first_check() {
    let now = Instant::now();
    let pool =
        Pool::new("a-service", Settings { health_source: HealthSource::ActiveChecks, ..Settings::default() });
    pool.update(&instances(1), now);
    assert!(!pool.is_available());
    pool.report_check("0", CheckResult::Passed, now);
    assert!(pool.is_available());
}

#[test]
fn a_deregistered_replica_finishes_its_requests() {
    let now = Instant::now();
    let (pool, picker) = (pool(2, now), Picker::new(Strategy::RoundRobin));
    let running = pool.pick(&picker, None, &[], now).unwrap();
    let id = running.instance().id.clone();
    let others: Vec<_> = instances(2).into_iter().filter(|instance| instance.id != id).collect();
    pool.update(&others, now);
    assert_eq!(health(&pool, &id, now), Health::Draining);
    assert_eq!(shares(&pool, &picker, 4, now).len(), 1);
    drop(running);
    assert_eq!(pool.snapshot(now).len(), 1);
}

#[test]
fn a_retry_goes_to_another_replica_or_nowhere() {
    let now = Instant::now();
    let (pool, picker) = (pool(2, now), Picker::new(Strategy::RoundRobin));
    let first = pool.pick(&picker, None, &[], now).unwrap();
    let second = pool.pick(&picker, None, &[first.key()], now).unwrap();
    assert_ne!(first.key(), second.key());
    let none = pool.pick(&picker, None, &[first.key(), second.key()], now);
    assert_eq!(none.unwrap_err(), PickError::NoCandidate);
}

#[test]
fn a_replica_gets_at_most_its_maximum_of_concurrent_requests() {
    let now = Instant::now();
    let pool = Pool::new("a-service", Settings { max_in_flight: 2, ..Settings::default() });
    pool.update(&instances(1), now);
    let picker = Picker::new(Strategy::RoundRobin);
    let picked_replicas: Vec<_> = (0..2).map(|_| pool.pick(&picker, None, &[], now).unwrap()).collect();
    assert_eq!(pool.pick(&picker, None, &[], now).unwrap_err(), PickError::AllBusy);
    drop(picked_replicas);
    assert!(pool.pick(&picker, None, &[], now).is_ok());
}

#[test]
fn an_exempt_request_takes_no_place_of_others() {
    let now = Instant::now();
    let pool = Pool::new("a-service", Settings { max_in_flight: 1, ..Settings::default() });
    pool.update(&instances(1), now);
    let picker = Picker::new(Strategy::RoundRobin);
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = pool.pick(&picker, None, &[], now).unwrap();
        stream.exempt_from_limit();
        stream.exempt_from_limit();
        streams.push(stream);
    }
    assert_eq!(pool.snapshot(now)[0].active_requests, 3);
    let plain = pool.pick(&picker, None, &[], now).unwrap();
    drop(streams);
    assert_eq!(pool.pick(&picker, None, &[], now).unwrap_err(), PickError::AllBusy);
    drop(plain);
    assert_eq!(pool.snapshot(now)[0].active_requests, 0);
}

/// An input of a pool.
#[derive(Debug, Clone)]
enum Step {
    Request(RequestOutcome),
    CheckState(usize, CheckResult),
    Registered(usize),
}

fn event() -> impl proptest::strategy::Strategy<Value = Step> {
    let outcome = prop::sample::select(vec![
        RequestOutcome::Unreachable,
        RequestOutcome::Reset,
        RequestOutcome::TimedOut,
        RequestOutcome::CallerFault,
        answered(StatusCode::BAD_GATEWAY),
        answered(StatusCode::TOO_MANY_REQUESTS),
        ok(),
    ]);
    let report = prop::sample::select(vec![
        CheckResult::Passed,
        CheckResult::Failed,
        CheckResult::Draining,
        CheckResult::Refused,
    ]);
    prop_oneof![
        8 => outcome.prop_map(Step::Request),
        2 => (0usize..6, report).prop_map(|(id, report)| Step::CheckState(id, report)),
        1 => (1usize..6).prop_map(Step::Registered),
    ]
}

proptest! {
    #[test]
    fn in_any_case_at_most_half_the_pool_is_ejected_and_a_replica_is_picked(
        events in prop::collection::vec((event(), 0u64..4000), 1..200),
    ) {
        let (mut now, mut size) = (Instant::now(), 3);
        let (pool, picker) = (pool(size, now), Picker::new(Strategy::RoundRobin));
        for (event, pause) in events {
            now += Duration::from_millis(pause);
            match event {
                Step::Request(outcome) => pool.pick(&picker, None, &[], now).unwrap().record(outcome, now),
                Step::CheckState(id, report) => pool.report_check(&id.to_string(), report, now),
                Step::Registered(instances) => {
                    size = instances;
                    pool.update(&self::instances(size), now);
                }
            }
            let seen = pool.snapshot(now);
            let ejected = seen.iter().filter(|seen| seen.health == Health::Ejected).count();
            prop_assert!(ejected <= size / 2, "{ejected} of {size}");
            prop_assert!(seen.iter().all(|seen| seen.active_requests == 0));
        }
    }

    #[test]
    fn round_robin_is_exactly_even_with_any_concurrency(
        size in 1usize..8,
        finished in prop::collection::vec(any::<prop::sample::Index>(), 1..300),
    ) {
        let now = Instant::now();
        let (pool, picker) = (pool(size, now), Picker::new(Strategy::RoundRobin));
        let mut running = Vec::new();
        for finish in &finished {
            running.push(pool.pick(&picker, None, &[], now).unwrap());
            if running.len() > 10 {
                running.swap_remove(finish.index(running.len())).record(ok(), now);
            }
        }
        let requests: Vec<u64> = pool.snapshot(now).iter().map(|seen| seen.requests).collect();
        let (least, most) = (requests.iter().min().unwrap(), requests.iter().max().unwrap());
        prop_assert!(most - least <= 1, "{requests:?}");
    }
}

#[test]
fn what_the_registry_says_of_a_replicas_health_counts_only_without_active_checks() {
    let now = Instant::now();
    let fail = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
    let (pool, picker) = (pool(3, now), Picker::new(Strategy::RoundRobin));
    pool.apply_registry_checks(&fail(&["0"]), now);
    assert_eq!(health(&pool, "0", now), Health::Unhealthy);
    assert!(!shares(&pool, &picker, 30, now).contains_key("0"));
    pool.apply_registry_checks(&fail(&["0", "1", "2"]), now);
    assert_eq!(
        shares(&pool, &picker, 30, now).len(),
        3,
        "a registry that calls all unhealthy is not believed"
    );
    pool.apply_registry_checks(&fail(&[]), now);
    assert!(pool.snapshot(now).iter().all(|seen| seen.health == Health::Healthy));

    let checked =
        Pool::new("b-service", Settings { health_source: HealthSource::ActiveChecks, ..Settings::default() });
    checked.update(&instances(1), now);
    checked.report_check("0", CheckResult::Passed, now);
    checked.apply_registry_checks(&fail(&["0"]), now);
    assert_eq!(health(&checked, "0", now), Health::Healthy);
}

#[test]
fn a_request_that_must_not_be_sent_twice_is_no_probe() {
    let now = Instant::now();
    let (pool, picker) = (pool(2, now), Picker::new(Strategy::RoundRobin));
    fail(&pool, "0", RequestOutcome::Unreachable, 1, now);
    let due = now + Duration::from_secs(2);
    for _ in 0..10 {
        let mut picked = pool.pick_without_probe(&picker, None, &[], due).unwrap();
        assert_eq!((picked.instance().id.as_str(), picked.probing), ("1", false));
        picked.record(ok(), due);
    }
    assert!(pool.pick(&picker, None, &[], due).unwrap().probing);
}
