//! The limits that the operating system sets to this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one. Shells and supervisors give 1,024, for programs that
/// use `select`; none of ours does.
pub fn raise_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        log::warn!(error:%; "the limit of open files cannot be raised");
    }
    log::info!(descriptors = descriptors(); "the limit of open files");
}

/// How many files and connections this process may have open.
pub fn descriptors() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum;
        let lower = Rlimit { current: Some(256), maximum: hard };
        setrlimit(Resource::Nofile, lower).unwrap();
        assert_eq!(descriptors(), 256);
        raise_descriptors();
        assert_eq!(getrlimit(Resource::Nofile), Rlimit { current: hard, maximum: hard });
    }
}
