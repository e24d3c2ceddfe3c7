//! Standard error. Lines wait there for a moment, so that one system call writes many of them.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

/// The longest wait of a line. A process that is killed loses the lines that wait.
const LONGEST_WAIT: Duration = Duration::from_millis(100);
/// At this number of bytes, all lines are written.
const FULL: usize = 32 * 1024;

/// Lines that wait, and where they are written. `env_logger` writes each line with one call of [`Write::write`].
#[derive(Clone)]
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
    pub(super) fn new(out: Box<dyn Write + Send>) -> io::Result<Self> {
        let waiting = Arc::new(Mutex::new(Waiting { lines: Vec::with_capacity(FULL), out }));
        let shared = waiting.clone();
        let writer = thread::Builder::new().name("log".to_owned()).spawn(move || {
            loop {
                thread::park();
                thread::sleep(LONGEST_WAIT);
                lock(&shared).write_out();
            }
        })?;
        Ok(Self { waiting, writer: writer.thread().clone() })
    }

    /// Writes the lines that wait.
    pub(super) fn write_out(&self) {
        lock(&self.waiting).write_out();
    }
}

impl Write for Output {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = lock(&self.waiting);
        let is_first = waiting.lines.is_empty();
        waiting.lines.extend_from_slice(line);
        if waiting.lines.len() >= FULL {
            waiting.write_out();
        } else if is_first {
            self.writer.unpark();
        }
        Ok(line.len())
    }

    /// Does nothing: `env_logger` flushes after each line.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Waiting {
    fn write_out(&mut self) {
        // There is nowhere to report an error. Then these lines are lost.
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

    /// Sends what each call writes.
    struct Calls(Sender<String>);

    impl Write for Calls {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(String::from_utf8(bytes.to_vec()).unwrap()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn output() -> (Output, Receiver<String>) {
        let (calls, written) = channel();
        (Output::new(Box::new(Calls(calls))).unwrap(), written)
    }

    #[test]
    fn a_line_that_waits_is_written_after_100_ms_though_none_follows_it() {
        let (mut output, written) = output();
        for line in ["one\n", "two\n"] {
            output.write_all(line.as_bytes()).unwrap();
            assert_eq!(written.recv_timeout(Duration::from_secs(10)).unwrap(), line);
        }
    }

    #[test]
    fn many_lines_are_written_by_few_calls_and_each_line_whole() {
        let (mut output, written) = output();
        let line = "x".repeat(200) + "\n";
        for _ in 0..1000 {
            output.write_all(line.as_bytes()).unwrap();
        }
        output.write_out();
        let calls: Vec<_> = written.try_iter().collect();
        assert_eq!(calls.concat(), line.repeat(1000));
        assert!(calls.len() < 100 && calls.iter().all(|call| call.ends_with('\n')), "{}", calls.len());
    }
}
