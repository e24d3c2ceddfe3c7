//! The bytes of all responses of a connection that its socket has not taken. The window of a stream bounds them for
//! each stream, and the client chooses it.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, Waker};

const MAX: usize = 256 * 1024;

#[derive(Default)]
pub(super) struct Backlog {
    /// Handed to `h2` since the socket took all.
    bytes: Cell<usize>,
    /// The socket takes nothing now.
    is_blocked: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Backlog {
    /// Ready when a response may hand over more.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.bytes.get() < MAX {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    pub(super) fn add(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes);
    }

    pub(super) fn set_blocked(&self, is_blocked: bool) {
        self.is_blocked.set(is_blocked);
    }

    /// `h2` has written what it can. Unless the socket is blocked, that is all.
    pub(super) fn written(&self) {
        if !self.is_blocked.get() {
            self.bytes.set(0);
            self.waiting.take().into_iter().for_each(Waker::wake);
        }
    }
}
