//! Hashes passwords with argon2id, which takes much time and memory on purpose.
//!
//! 19 MiB, two passes, one lane: what OWASP's Password Storage Cheat Sheet recommends first. At most
//! two hashes run at once, so that a burst of logins cannot take all memory. A request that waits too
//! long for its turn is answered 503.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use shared::auth::SealKey;
use shared::resilience::Limiter;

use crate::domain::Password;
use crate::error::Error;

const MAX_CONCURRENT: usize = 2;
const QUEUE: usize = 64;
const QUEUE_TIMEOUT: Duration = Duration::from_secs(4);
/// After a hash in [`Lane::Slow`], that lane rests this many times as long. So guessed passwords take a third of one
/// processor, however many clients guess them.
const REST: u32 = 2;

/// Hashes and checks passwords. Clones share the limit.
#[derive(Clone)]
pub struct Passwords {
    limiter: Limiter,
    /// The limit of the clients in [`Lane::New`]; `slow` is that of the clients in [`Lane::Slow`].
    new: Limiter,
    slow: Limiter,
    /// When [`Lane::Slow`] has rested.
    resting_until: Arc<Mutex<Instant>>,
    /// The hash of a random password. Verified when the user is unknown, so that the answer takes as long.
    decoy: Arc<str>,
    key: SealKey,
}

/// The order in which passwords are hashed. In the last two lanes one hash is computed at a time, so that many
/// attackers leave room for known clients, and those who have failed leave room for new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Clients that have logged in before.
    Known,
    New,
    /// Clients that have failed lately.
    Slow,
}

impl Passwords {
    /// `key` is for [`Passwords::seal`].
    pub fn new(key: SealKey) -> Self {
        let decoy: [u8; 16] = rand::random();
        let decoy = hashed(&decoy).unwrap_or_default();
        let limiter = |running| Limiter::new(running, QUEUE, QUEUE_TIMEOUT);
        let (new, slow) = (limiter(1), limiter(1));
        let resting_until = Arc::new(Mutex::new(Instant::now()));
        Self { limiter: limiter(MAX_CONCURRENT), new, slow, resting_until, decoy: decoy.into(), key }
    }

    /// The keyed digest of a body that holds a password. It stays in the database for a day; there, a
    /// plain digest would let a thief try passwords much faster than argon2 does.
    pub fn seal(&self, body: &[u8]) -> Result<Vec<u8>, Error> {
        self.key.seal(body).map(String::into_bytes).map_err(Error::Hashing)
    }

    /// The hash of `password`, as a PHC string; [`Error::Busy`] if too many wait.
    pub async fn hash(&self, password: Password, lane: Lane) -> Result<String, Error> {
        self.run(lane, move || hashed(password.expose().as_bytes())).await
    }

    /// Whether `hash` is that of `password`; without a hash `false`, after the same time.
    /// [`Error::Busy`] if too many wait.
    pub async fn verify(&self, password: String, hash: Option<String>, lane: Lane) -> Result<bool, Error> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.decoy.to_string());
        let verify = move || Ok(argon2().verify_password(password.as_bytes(), hash.as_str()).is_ok());
        Ok(self.run(lane, verify).await? && known)
    }

    async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, Error> {
        let turn = match lane {
            Lane::Known => None,
            Lane::New => Some(self.new.enter().await.map_err(|_| Error::Busy)?),
            Lane::Slow => Some(self.slow.enter().await.map_err(|_| Error::Busy)?),
        };
        let resting_until = self.resting_until.clone();
        if lane == Lane::Slow {
            let until = *resting_until.lock().unwrap_or_else(PoisonError::into_inner);
            tokio::time::sleep_until(until.into()).await;
        }
        let permit = self.limiter.enter().await.map_err(|_| Error::Busy)?;
        let hashed = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            let result = work();
            if lane == Lane::Slow {
                let rest = Instant::now() + begun.elapsed() * REST;
                *resting_until.lock().unwrap_or_else(PoisonError::into_inner) = rest;
            }
            // The hashing holds it, and continues when its request is gone.
            drop((permit, turn));
            result
        });
        let hashed = hashed.await.map_err(|error| error.to_string());
        hashed.and_then(|result| result).map_err(Error::Hashing)
    }
}

fn argon2() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT)
}

fn hashed(password: &[u8]) -> Result<String, String> {
    argon2().hash_password(password).map(|hash| hash.to_string()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use shared::auth::Secret;

    use super::*;

    fn passwords(key: u8) -> Passwords {
        let key = base64::engine::general_purpose::STANDARD.encode([key; 32]);
        Passwords::new(SealKey::from_base64(&Secret::new(key)).unwrap())
    }

    #[test]
    fn a_sealed_body_is_recognised_only_with_the_key() {
        let body = br#"{"password":"a long enough one"}"#;
        assert_eq!(passwords(1).seal(body).unwrap(), passwords(1).seal(body).unwrap());
        assert_ne!(passwords(1).seal(body).unwrap(), passwords(1).seal(b"{}").unwrap());
        assert_ne!(passwords(1).seal(body).unwrap(), passwords(2).seal(body).unwrap());
    }

    #[tokio::test]
    async fn a_hash_fits_its_password_and_no_other() {
        let passwords = passwords(1);
        let password = Password::try_from("a long enough one".to_owned()).unwrap();
        let hash = passwords.hash(password, Lane::New).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let is_right = async |password: &str, hash: Option<&String>, lane| {
            passwords.verify(password.to_owned(), hash.cloned(), lane).await.unwrap()
        };
        for lane in [Lane::Known, Lane::New, Lane::Slow] {
            assert!(is_right("a long enough one", Some(&hash), lane).await);
            assert!(!is_right("another long one", Some(&hash), lane).await);
            assert!(!is_right("a long enough one", None, lane).await);
        }
    }

    #[tokio::test]
    async fn clients_that_are_new_or_have_failed_do_not_keep_known_ones_waiting() {
        let passwords = passwords(1);
        let done = std::cell::RefCell::new(Vec::new());
        let check = async |lane| {
            let checked = passwords.verify("a wrong password".to_owned(), None, lane).await;
            // That lane is slow enough for its queue to time out.
            assert!(checked.is_ok() || lane == Lane::Slow);
            done.borrow_mut().push(lane);
        };
        let lanes = [[Lane::Slow; 12].as_slice(), &[Lane::New; 12], &[Lane::Known]].concat();
        futures_util::future::join_all(lanes.into_iter().map(check)).await;
        let place = done.borrow().iter().position(|lane| *lane == Lane::Known).unwrap();
        assert!(place < 12, "it came last, and was done as number {place}");
    }

    #[tokio::test]
    async fn guessed_passwords_leave_two_thirds_of_the_time_to_others() {
        let (passwords, began) = (passwords(1), std::sync::Mutex::new(Vec::new()));
        let (began, time) = (Arc::new(began), Duration::from_millis(50));
        let work = || {
            let began = began.clone();
            move || {
                began.lock().unwrap().push(Instant::now());
                std::thread::sleep(time);
                Ok(())
            }
        };
        let hash = async || passwords.run(Lane::Slow, work()).await.unwrap();
        tokio::join!(hash(), hash(), hash());
        let began = began.lock().unwrap();
        for pair in began.windows(2) {
            let apart = pair[1] - pair[0];
            assert!(apart >= time * 3, "{apart:?}");
        }
    }

    #[test]
    fn a_lane_that_rests_occupies_no_thread() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().max_blocking_threads(1).build().unwrap().block_on(async {
            let (passwords, time) = (passwords(1), Duration::from_millis(200));
            let work = move || {
                std::thread::sleep(time);
                Ok(Instant::now())
            };
            let slow = async {
                passwords.run(Lane::Slow, work).await.unwrap();
                passwords.run(Lane::Slow, work).await.unwrap() - time
            };
            let known = async {
                // This waits in the queue of the only thread, behind the first.
                tokio::task::yield_now().await;
                passwords.run(Lane::Known, work).await.unwrap()
            };
            let (second, known) = tokio::join!(slow, known);
            assert!(
                known < second,
                "the lane began again before the known client was served: {known:?} {second:?}"
            );
        });
    }
}
