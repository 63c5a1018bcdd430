//! What is seen in the end: a picture of each way, on the same scales, and a table.

use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::time::Duration;
use std::{array, env};

use crate::bank::HOT;
use crate::worker::{Done, Way};

/// What the workers' connections did at a moment: how many worked, how many waited for a lock.
pub struct Sample {
    pub at: u64,
    pub work: i64,
    pub wait: i64,
}

/// One way's run.
pub struct Day {
    pub way: Way,
    pub began: u64,
    pub took: Duration,
    pub done: Vec<Done>,
    pub samples: Vec<Sample>,
    pub charged: i64,
    pub lost: i64,
    /// The most connections that a process had in use, and by how many they exceeded its keys in use at most.
    pub connections: i64,
    pub beyond: i64,
}

const COLUMNS: usize = 60;
const ROWS: usize = 5;
const NAME: usize = 12;
const RED: &str = "31";
const GREEN: &str = "32";

impl Day {
    pub fn new(way: Way, began: u64) -> Self {
        let (took, done, samples) = (Duration::ZERO, Vec::new(), Vec::new());
        Self { way, began, took, done, samples, charged: 0, lost: 0, connections: 0, beyond: i64::MIN }
    }

    fn title(&self) -> &'static str {
        match self.way {
            Way::None => "no locks",
            Way::Advisory => "advisory locks",
            Way::Both => "both layers",
        }
    }

    /// How long each charge on a quiet account waited before it began, in milliseconds, in order.
    fn quiet_waits(&self) -> Vec<f64> {
        let quiet = self.done.iter().filter(|done| done.account != HOT);
        let mut waits: Vec<_> = quiet.map(|done| (done.began - done.came) as f64 / 1000.0).collect();
        waits.sort_by(f64::total_cmp);
        waits
    }

    /// Of all pairs of charges on the hot account, how many in a hundred began in another order than they came in: within
    /// the processes, and among all.
    fn disorder(&self, processes: usize) -> (f64, f64) {
        let hot = |process: Option<usize>| -> Vec<_> {
            let hot = self.done.iter().filter(|done| done.account == HOT);
            let mut hot: Vec<_> = hot.filter(|done| process.is_none_or(|process| process == done.process)).collect();
            hot.sort_by_key(|done| done.came);
            hot.iter().map(|done| done.began).collect()
        };
        let mut within = (0, 0);
        for process in 0..processes {
            let (wrong, pairs) = inversions(&hot(Some(process)));
            within = (within.0 + wrong, within.1 + pairs);
        }
        (percent(within), percent(inversions(&hot(None))))
    }

    fn each_second(&self) -> f64 {
        self.done.len() as f64 / self.took.as_secs_f64()
    }
}

fn percent((part, all): (usize, usize)) -> f64 {
    100.0 * part as f64 / all.max(1) as f64
}

fn inversions(times: &[u64]) -> (usize, usize) {
    let later = |at: usize| times[at + 1..].iter().filter(|later| **later < times[at]).count();
    let wrong = (0..times.len()).map(later).sum();
    (wrong, times.len() * times.len().saturating_sub(1) / 2)
}

/// Returns the report: a picture of each way, and a table of them all.
pub fn report(days: &[Day], processes: usize) -> String {
    let colour = io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none();
    let mut text = String::new();
    let end = days.iter().map(|day| day.took).max().unwrap_or_default().as_micros() as u64;
    let top = days.iter().flat_map(|day| &day.samples).map(|sample| sample.work + sample.wait).max().unwrap_or(1);
    let longest = days.iter().filter_map(|day| day.quiet_waits().last().copied()).fold(1.0, f64::max);
    for day in days {
        picture(&mut text, day, end, top.max(1), longest, colour);
    }
    let _ = writeln!(
        text,
        "\n{:NAME$}  {} works   {} waits for a lock, and occupies a connection meanwhile\n",
        "",
        paint(colour, GREEN, "█"),
        paint(colour, RED, "▒"),
    );
    table(&mut text, days, processes);
    text
}

fn picture(text: &mut String, day: &Day, end: u64, top: i64, longest: f64, colour: bool) {
    let column = |at: u64| ((at.saturating_sub(day.began) * COLUMNS as u64 / end.max(1)) as usize).min(COLUMNS - 1);
    let _ = writeln!(text, "\n{}, {:.1} s", day.title().to_uppercase(), day.took.as_secs_f64());

    let paid = ((day.charged - day.lost).max(0) * COLUMNS as i64 / day.charged.max(1)) as usize;
    let bars = paint(colour, GREEN, &"█".repeat(paid)) + &paint(colour, RED, &"▒".repeat(COLUMNS - paid));
    let lost = if day.lost == 0 { "all paid".into() } else { format!("{} of {} lost", day.lost, day.charged) };
    let _ = writeln!(text, "{:>NAME$} │{bars}│ {lost}", "money");

    let mut cells: [(i64, i64, i64); COLUMNS] = [(0, 0, 0); COLUMNS];
    for sample in &day.samples {
        let (work, wait, samples) = &mut cells[column(sample.at)];
        (*work, *wait, *samples) = (*work + sample.work, *wait + sample.wait, *samples + 1);
    }
    for row in (0..ROWS).rev() {
        let height = (row as f64 + 0.3) * top as f64 / ROWS as f64;
        let cells: String = cells
            .iter()
            .map(|(work, wait, samples)| {
                let each = |count: i64| count as f64 / (*samples).max(1) as f64;
                let (work, all) = (each(*work), each(work + wait));
                // The lowest row shows that there is any.
                let reaches = |count: f64| count > height || (row == 0 && count > 0.0);
                match () {
                    () if reaches(work) && (row > 0 || work >= all - work) => paint(colour, GREEN, "█"),
                    () if reaches(all) => paint(colour, RED, "▒"),
                    () => " ".into(),
                }
            })
            .collect();
        let name = if row == ROWS - 1 { "connections" } else { "" };
        let scale = if row == ROWS - 1 { format!(" {top}") } else { String::new() };
        let _ = writeln!(text, "{name:>NAME$} │{cells}│{scale}");
    }

    let mut waits = [0.0; COLUMNS];
    for done in day.done.iter().filter(|done| done.account != HOT) {
        let cell: &mut f64 = &mut waits[column(done.came)];
        *cell = cell.max((done.began - done.came) as f64 / 1000.0);
    }
    let bars: [String; COLUMNS] = array::from_fn(|at| match waits[at] {
        0.0 => " ".into(),
        wait => {
            let eighths = ((wait / longest * 8.0) as usize).min(7);
            let bar = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"][eighths];
            paint(colour, if eighths == 0 { GREEN } else { RED }, bar)
        }
    });
    let most = day.quiet_waits().last().copied().unwrap_or(0.0);
    let _ = writeln!(text, "{:>NAME$} │{}│ up to {most:.0} ms", "quiet waits", bars.concat());
}

fn table(text: &mut String, days: &[Day], processes: usize) {
    let _ = writeln!(
        text,
        "| | money lost | charges per second | connections per process | more than keys in use | longest wait, quiet accounts | median wait | hot account, pairs out of order | within a process |"
    );
    let _ = writeln!(text, "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for day in days {
        let waits = day.quiet_waits();
        let (within, among) = day.disorder(processes);
        let _ = writeln!(
            text,
            "| {} | {} | {:.0} | {} | {} | {:.0} ms | {:.0} ms | {among:.1} % | {within:.1} % |",
            day.title(),
            day.lost,
            day.each_second(),
            day.connections,
            day.beyond.max(0),
            waits.last().unwrap_or(&0.0),
            waits.get(waits.len() / 2).unwrap_or(&0.0),
        );
    }
    let longest = |way: Way| days.iter().find(|day| day.way == way)?.quiet_waits().last().copied();
    if let (Some(advisory), Some(both)) = (longest(Way::Advisory), longest(Way::Both)) {
        let _ = writeln!(
            text,
            "\nQuiet accounts wait {:.0} times as long with advisory locks alone as with the mutex in front of them.",
            advisory / both.max(0.001),
        );
    }
}

fn paint(colour: bool, code: &str, text: &str) -> String {
    if colour && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.into() }
}
