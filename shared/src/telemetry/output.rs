//! Standard error. The lines of requests wait there for a moment, so that one system call writes many of them.

use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

/// The longest wait of a line. A process that is killed loses the lines that wait.
const LONGEST_WAIT: Duration = Duration::from_millis(100);
/// With so many bytes, no line waits any longer.
const FULL: usize = 32 * 1024;

/// Whether a line may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    AtOnce,
    Soon,
}

/// Lines that wait, and where they are written.
pub(super) struct Output {
    waiting: Arc<Mutex<Waiting>>,
    /// Writes the lines that have waited. It sleeps while there are none.
    writer: Thread,
}

struct Waiting {
    lines: Vec<u8>,
    out: Box<dyn Write + Send>,
}

impl Output {
    /// # Errors
    /// When no thread can be started.
    pub(super) fn new(out: Box<dyn Write + Send>) -> std::io::Result<Self> {
        let waiting = Arc::new(Mutex::new(Waiting { lines: Vec::with_capacity(FULL), out }));
        let shared = waiting.clone();
        let writer = thread::Builder::new().name("log".to_owned()).spawn(move || {
            loop {
                thread::park();
                thread::sleep(LONGEST_WAIT);
                lock(&shared).write();
            }
        })?;
        Ok(Self { waiting, writer: writer.thread().clone() })
    }

    /// Writes `line`, and before it the lines that wait. A line that is not urgent may wait with them.
    pub(super) fn write(&self, line: &str, urgency: Urgency) {
        let mut waiting = lock(&self.waiting);
        let is_first = waiting.lines.is_empty();
        waiting.lines.extend_from_slice(line.as_bytes());
        waiting.lines.push(b'\n');
        if urgency == Urgency::AtOnce || waiting.lines.len() >= FULL {
            waiting.write();
        } else if is_first {
            self.writer.unpark();
        }
    }

    pub(super) fn flush(&self) {
        lock(&self.waiting).write();
    }
}

impl Waiting {
    fn write(&mut self) {
        // Nobody could be told.
        _ = self.out.write_all(&self.lines);
        self.lines.clear();
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Tells what each call has written.
    struct Calls(Sender<String>);

    impl Write for Calls {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.send(String::from_utf8(bytes.to_vec()).unwrap()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn output() -> (Output, Receiver<String>) {
        let (calls, written) = channel();
        (Output::new(Box::new(Calls(calls))).unwrap(), written)
    }

    #[test]
    fn an_urgent_line_is_written_at_once_after_those_that_wait() {
        let (output, written) = output();
        output.write("one", Urgency::Soon);
        output.write("two", Urgency::Soon);
        output.write("three", Urgency::AtOnce);
        assert_eq!(written.try_iter().collect::<String>(), "one\ntwo\nthree\n");
    }

    #[test]
    fn a_line_is_written_soon_though_none_follows_it() {
        let (output, written) = output();
        for line in ["one", "two"] {
            output.write(line, Urgency::Soon);
            assert_eq!(written.recv_timeout(Duration::from_secs(10)).unwrap(), format!("{line}\n"));
        }
    }

    #[test]
    fn many_lines_are_written_by_few_calls_and_each_line_whole() {
        let (output, written) = output();
        let line = "x".repeat(200);
        for _ in 0..1000 {
            output.write(&line, Urgency::Soon);
        }
        output.flush();
        let calls: Vec<_> = written.try_iter().collect();
        assert_eq!(calls.concat(), format!("{line}\n").repeat(1000));
        assert!(calls.len() < 100 && calls.iter().all(|call| call.ends_with('\n')), "{}", calls.len());
    }
}
