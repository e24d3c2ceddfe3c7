//! Replaces `nats.rs` in a build without the feature `nats`. No [`NatsUrl`] can be parsed, so no [`Nats`] is
//! ever created.

use std::sync::Arc;

use async_trait::async_trait;

use super::inbox::Inbox;
use super::waiting::Stored;
use super::{Outgoing, SendError, Transport};
use crate::auth::Calls;
use crate::stop::Stop;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NatsUrl {}

#[derive(Clone)]
pub struct Nats(());

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {}

impl NatsUrl {
    pub(super) fn parse(_: &str) -> Option<Self> {
        None
    }
}

impl Nats {
    pub async fn connect(url: &NatsUrl, _: Calls) -> Result<Self, ConnectError> {
        match *url {}
    }

    pub(super) async fn ping(&self) -> Result<(), String> {
        Ok(())
    }

    pub(super) async fn stored_for(&self, _: &str) -> Result<Stored, String> {
        Err("built without NATS".to_owned())
    }

    pub(super) async fn consume(&self, _: Arc<Inbox>, _: Stop) {}
}

#[async_trait(?Send)]
impl Transport for Nats {
    async fn send(&self, _: &Outgoing) -> Result<(), SendError> {
        Err(SendError::Unavailable("built without NATS".to_owned()))
    }
}
