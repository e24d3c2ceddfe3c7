//! The chassis: plumbing that any service of any business needs, and no business noun.
