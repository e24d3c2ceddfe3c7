//! Retry budget: limits retries to a share of the traffic, so that they cannot overload a failing service.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// In any 10 seconds, allows one retry per five requests, plus 3 per second for low traffic (the rule of Finagle and
/// linkerd). Threads share it.
#[derive(Debug)]
pub struct Budget(Mutex<Window>);

#[derive(Debug)]
struct Window {
    started: Instant,
    /// Requests and retries of each of the last ten seconds, by second modulo ten.
    seconds: [Second; SECONDS],
}

#[derive(Debug, Clone, Copy, Default)]
struct Second {
    number: u64,
    requests: u32,
    retries: u32,
}

const SECONDS: usize = 10;
const SHARE: f64 = 0.2;
const PER_SECOND: f64 = 3.0;

impl Budget {
    pub fn new(now: Instant) -> Self {
        Self(Mutex::new(Window { started: now, seconds: [Second::default(); SECONDS] }))
    }

    /// Counts a request. Do not call it for a retry.
    pub fn record_request(&self, now: Instant) {
        self.window().second(now).requests += 1;
    }

    /// Withdraws one retry; `false` if the budget is exhausted.
    pub fn take(&self, now: Instant) -> bool {
        let mut window = self.window();
        let (requests, retries) = window.sums(now);
        let allowed = SHARE * f64::from(requests) + PER_SECOND * SECONDS as f64;
        let granted = f64::from(retries) + 1.0 <= allowed;
        if granted {
            window.second(now).retries += 1;
        }
        granted
    }

    fn window(&self) -> std::sync::MutexGuard<'_, Window> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    fn number(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_secs()
    }

    fn second(&mut self, now: Instant) -> &mut Second {
        let number = self.number(now);
        let second = &mut self.seconds[number as usize % SECONDS];
        if second.number != number {
            *second = Second { number, ..Second::default() };
        }
        second
    }

    fn sums(&self, now: Instant) -> (u32, u32) {
        let oldest = self.number(now + Duration::from_secs(1)).saturating_sub(SECONDS as u64);
        let recent = self.seconds.iter().filter(|second| second.number >= oldest);
        recent.fold((0, 0), |(requests, retries), second| {
            (requests + second.requests, retries + second.retries)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(budget: &Budget, now: Instant) -> usize {
        (0..1000).take_while(|_| budget.take(now)).count()
    }

    #[test]
    fn a_quiet_service_may_be_retried_three_times_a_second() {
        let now = Instant::now();
        assert_eq!(takes(&Budget::new(now), now), 30);
    }

    #[test]
    fn a_busy_service_may_be_retried_for_a_fifth_of_its_requests_more() {
        let now = Instant::now();
        let budget = Budget::new(now);
        (0..100).for_each(|_| budget.record_request(now));
        assert_eq!(takes(&budget, now), 50);
    }

    #[test]
    fn requests_older_than_ten_seconds_do_not_count() {
        let now = Instant::now();
        let budget = Budget::new(now);
        assert_eq!(takes(&budget, now), 30);
        assert_eq!(takes(&budget, now + Duration::from_secs(9)), 0);
        assert_eq!(takes(&budget, now + Duration::from_secs(10)), 30);
    }
}
