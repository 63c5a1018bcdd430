//! What is seen in the end: for each engine, a picture of each way, on the same scales, and a table.

use std::env;
use std::fmt::Write;
use std::io::{self, IsTerminal};

use crate::bank::{Books, HOT, Way};
use crate::server::Engine;
use crate::worker::Said;

/// One way's run on one engine. Times are in microseconds since its beginning.
pub struct Day {
    pub engine: Engine,
    pub way: Way,
    pub took: u64,
    /// What each process said.
    pub said: Vec<Vec<Said>>,
    /// When the server's requests were counted, and how many there had been.
    pub requests: Vec<(u64, u64)>,
    pub books: Books,
}

const COLUMNS: usize = 64;
const NAME: usize = 12;
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const GREY: &str = "90";

impl Day {
    fn title(&self) -> &'static str {
        match self.way {
            Way::None => "no lock",
            Way::Alone => "a lease in each task",
            Way::Unfenced => "behind the mutex",
            Way::Fenced => "behind the mutex, with the fence",
        }
    }

    /// When each charge on a quiet account came, and how long it waited. A process that was stopped meanwhile kept its own
    /// waiting, which is not counted.
    fn quiet_waits(&self) -> Vec<(u64, u64)> {
        let mut waits = Vec::new();
        for said in &self.said {
            let stops = stops(said, self.took);
            for said in said {
                if let Said::Done { account, came, began, .. } = *said
                    && account != HOT
                    && !stops.iter().any(|(from, to)| came < *to && *from < began)
                {
                    waits.push((came, began - came));
                }
            }
        }
        waits
    }

    fn longest_wait(&self) -> f64 {
        self.quiet_waits().into_iter().map(|(_, wait)| wait).max().unwrap_or(0) as f64 / 1000.0
    }

    fn count(&self, what: impl Fn(&Said) -> bool) -> usize {
        self.said.iter().flatten().filter(|said| what(said)).count()
    }

    /// The server's requests for each charge.
    pub fn requests_each(&self) -> f64 {
        let (first, last) = (self.requests.first(), self.requests.last());
        let all = first.zip(last).map_or(0, |(first, last)| last.1 - first.1);
        all as f64 / self.books.charges.max(1) as f64
    }
}

/// From when to when a process was stopped.
fn stops(said: &[Said], end: u64) -> Vec<(u64, u64)> {
    let mut stops = Vec::new();
    for said in said {
        match *said {
            Said::Stops { at } => stops.push((at, end)),
            Said::GoesOn { at } => stops.last_mut().expect("it was stopped").1 = at,
            _ => {}
        }
    }
    stops
}

/// Returns the report on one engine.
pub fn report(days: &[Day]) -> String {
    let colour = io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none();
    let mut text = String::new();
    let scales = Scales {
        end: days.iter().map(|day| day.took).max().unwrap_or(1).max(1),
        longest: days.iter().map(Day::longest_wait).fold(1.0, f64::max),
        colour,
    };
    for day in days {
        picture(&mut text, day, &scales);
    }
    let paint = |code, text| paint(colour, code, text);
    let _ = writeln!(
        text,
        "\n{:NAME$}  {} charges the hot account   {} stopped   {} overwrites what others wrote   {} refused by the fence\n",
        "",
        paint(GREEN, "█"),
        paint(GREY, "‖"),
        paint(RED, "✗"),
        paint(YELLOW, "◆"),
    );
    table(&mut text, days);
    text
}

/// The same for all pictures of an engine.
struct Scales {
    end: u64,
    longest: f64,
    colour: bool,
}

impl Scales {
    fn column(&self, at: u64) -> usize {
        ((at * COLUMNS as u64 / self.end) as usize).min(COLUMNS - 1)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        paint(self.colour, code, text)
    }

    /// A row of bars, each of which is at most 1.
    fn bars(&self, heights: &[f64; COLUMNS], code: impl Fn(usize) -> &'static str) -> String {
        let bar = |height: &f64| match *height {
            0.0 => " ".into(),
            height => {
                let eighths = ((height * 8.0) as usize).min(7);
                self.paint(code(eighths), ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"][eighths])
            }
        };
        heights.iter().map(bar).collect()
    }
}

fn picture(text: &mut String, day: &Day, scales: &Scales) {
    let (engine, title) = (day.engine.name().to_uppercase(), day.title().to_uppercase());
    let _ = writeln!(text, "\n{engine}: {title}, {:.1} s", day.took as f64 / 1e6);

    let Books { charged, lost, .. } = day.books;
    let paid = ((charged - lost).max(0) * COLUMNS as i64 / charged.max(1)) as usize;
    let bars = scales.paint(GREEN, &"█".repeat(paid)) + &scales.paint(RED, &"▒".repeat(COLUMNS - paid));
    let lost = if lost == 0 { "all paid".into() } else { format!("{lost} of {charged} lost") };
    let _ = writeln!(text, "{:>NAME$} │{bars}│ {lost}", "money");

    for (process, said) in day.said.iter().enumerate() {
        let mut cells = [' '; COLUMNS];
        let mut fill = |from: u64, to: u64, with: char| {
            cells[scales.column(from)..=scales.column(to)].fill(with);
        };
        // What comes later is more important, and covers what was there.
        for said in said {
            if let Said::Done { account: HOT, began, at, .. } = *said {
                fill(began, at, '█');
            }
        }
        for (from, to) in stops(said, day.took) {
            fill(from, to, '‖');
        }
        for said in said {
            match *said {
                Said::Done { overwrote: true, at, .. } => fill(at, at, '✗'),
                // It writes at once. Then it learns that its lease has ended.
                Said::GoesOn { at } if day.way != Way::Fenced => fill(at, at, '✗'),
                Said::Lost { at, .. } if day.way == Way::Fenced => fill(at, at, '◆'),
                _ => {}
            }
        }
        let colour = |cell: char| match cell {
            '█' => scales.paint(GREEN, "█"),
            '‖' => scales.paint(GREY, "‖"),
            '✗' => scales.paint(RED, "✗"),
            '◆' => scales.paint(YELLOW, "◆"),
            _ => " ".into(),
        };
        let cells: String = cells.into_iter().map(colour).collect();
        let _ = writeln!(text, "{:>NAME$} │{cells}│", format!("process {}", process + 1));
    }

    let mut waits = [0.0_f64; COLUMNS];
    for (came, wait) in day.quiet_waits() {
        let cell = &mut waits[scales.column(came)];
        *cell = cell.max(wait as f64 / 1000.0 / scales.longest);
    }
    let bars = scales.bars(&waits, |eighths| if eighths == 0 { GREEN } else { RED });
    let _ = writeln!(text, "{:>NAME$} │{bars}│ up to {:.0} ms", "quiet waits", day.longest_wait());

    // On a scale of powers of ten: one bar more is three times as many.
    let mut requests = [0.0; COLUMNS];
    for pair in day.requests.windows(2) {
        let ([(from, before), (to, after)], rate) =
            ([pair[0], pair[1]], |count: u64, time: u64| count as f64 * 1e6 / time as f64);
        let each = rate(after - before, (to - from).max(1));
        let columns = scales.column(from)..=scales.column(to.min(day.took));
        if !columns.is_empty() {
            requests[columns].fill((each.max(1.0).log10() / 5.0).min(1.0));
        }
    }
    let bars = scales.bars(&requests, |eighths| if eighths < 6 { GREEN } else { RED });
    let _ = writeln!(text, "{:>NAME$} │{bars}│ {:.1} for each charge", "requests", day.requests_each());
}

fn table(text: &mut String, days: &[Day]) {
    let engine = days.first().map_or("", |day| day.engine.name());
    let charged = days.first().map_or(0, |day| day.books.charged);
    let _ = writeln!(
        text,
        "| {engine} | money lost (of {charged}) | requests to the server for each charge | longest wait for a quiet account | \
         leases that ended before the charge |"
    );
    let _ = writeln!(text, "| --- | ---: | ---: | ---: | ---: |");
    for day in days {
        let _ = writeln!(
            text,
            "| {} | {} | {:.1} | {:.0} ms | {} |",
            day.title(),
            day.books.lost,
            day.requests_each(),
            day.longest_wait(),
            day.count(|said| matches!(said, Said::Lost { .. })),
        );
    }
}

fn paint(colour: bool, code: &str, text: &str) -> String {
    if colour && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.into() }
}
