//! Regret by script: a line of the table, an object of `summary.json`.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    ArmKind, Counts, Play,
    outcome::Outcome,
    script::{Cell, Script},
};

/// All plays of one script in one cell. Counts are sums over the plays.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub script: &'static str,
    pub what: &'static str,
    pub proxy: &'static str,
    pub engine: &'static str,
    pub plays: u32,
    pub acting: Counts,
    pub mute: Counts,
    pub mute_again: Counts,
    pub plain: Counts,
    /// Acting less the mean of both mutes, in the order of [`Outcome::BAD`].
    pub regret: [f64; 5],
    /// The acting arm less the plain arm.
    pub regret_to_plain: [f64; 5],
    /// What the mutes differ by, summed over the plays.
    pub allowance: [f64; 5],
    pub causes: BTreeMap<ArmKind, BTreeMap<String, u32>>,
    /// What is above the allowance, and in most plays; or did not gain. Empty if nothing.
    pub worse: Vec<String>,
    /// Why it could not be played.
    pub error: Option<String>,
    #[serde(skip)]
    gains: bool,
    /// Why it is not compared with plain.
    pub no_plain: Option<&'static str>,
    /// How many plays were worse than both mutes, and than plain by more than the mutes differed.
    #[serde(skip)]
    worse_plays: [[u32; 5]; 2],
}

impl Row {
    pub fn new(script: &Script, cell: Cell) -> Self {
        Self {
            script: script.name,
            what: script.what,
            proxy: cell.proxy.word(),
            engine: cell.engine_word(),
            plays: 0,
            acting: Counts::default(),
            mute: Counts::default(),
            mute_again: Counts::default(),
            plain: Counts::default(),
            regret: [0.0; 5],
            regret_to_plain: [0.0; 5],
            allowance: [0.0; 5],
            causes: BTreeMap::new(),
            worse: Vec::new(),
            error: None,
            gains: script.gains,
            no_plain: script.no_plain,
            worse_plays: [[0; 5]; 2],
        }
    }

    pub fn add(&mut self, play: &Play) {
        let of = |kind| play.counts.get(&kind).copied().unwrap_or_default();
        let (mute, again) = (of(ArmKind::Mute), of(ArmKind::MuteAgain));
        let (acting, plain) = (of(ArmKind::Acting), of(ArmKind::Plain));
        self.plays += 1;
        self.acting = self.acting.plus(acting);
        self.mute = self.mute.plus(mute);
        self.mute_again = self.mute_again.plus(again);
        self.plain = self.plain.plus(plain);
        for (kind, causes) in &play.causes {
            for (cause, count) in causes {
                *self.causes.entry(*kind).or_default().entry(cause.clone()).or_default() += count;
            }
        }
        let differ = zip(mute.bad(), again.bad(), |a, b| (a - b).abs());
        self.allowance = zip(self.allowance, differ, |a, b| a + b);
        let most = [zip(mute.bad(), again.bad(), f64::max), zip(plain.bad(), differ, |a, b| a + b)];
        for (plays, most) in self.worse_plays.iter_mut().zip(most) {
            for ((plays, acting), most) in plays.iter_mut().zip(acting.bad()).zip(most) {
                *plays += u32::from(acting > most);
            }
        }
        let mutes = zip(self.mute.bad(), self.mute_again.bad(), f64::midpoint);
        self.regret = zip(self.acting.bad(), mutes, |a, b| a - b);
        self.regret_to_plain = zip(self.acting.bad(), self.plain.bad(), |a, b| a - b);
        self.worse = self.judge();
    }

    /// Whether clients of the mute arms suffered at all, so that one play says little.
    pub fn mute_suffers(&self) -> bool {
        self.mute.plus(self.mute_again).slow > 0
    }

    fn judge(&self) -> Vec<String> {
        let mut worse = Vec::new();
        let against = [("mute", self.regret), ("plain", self.regret_to_plain)];
        for ((against, regret), plays) in against.into_iter().zip(self.worse_plays) {
            if against == "plain" && self.no_plain.is_some() {
                continue;
            }
            let columns = Outcome::BAD.iter().zip(regret).zip(self.allowance).zip(plays);
            for (((outcome, regret), allowance), plays) in columns {
                // One attempt more or less in a transaction at the wrong moment is chance, and not in each play.
                if regret > allowance && 2 * plays > self.plays {
                    worse.push(format!("{} {regret:+} to {against}", outcome.word()));
                }
            }
        }
        let failed = |counts: [f64; 5]| counts.get(1).copied().unwrap_or_default();
        if self.gains && failed(self.regret) >= 0.0 {
            worse.push("gains nothing".into());
        }
        worse
    }
}

fn zip(one: [f64; 5], other: [f64; 5], with: impl Fn(f64, f64) -> f64) -> [f64; 5] {
    let mut zipped = one;
    for (zipped, other) in zipped.iter_mut().zip(other) {
        *zipped = with(*zipped, other);
    }
    zipped
}

/// The first lines of the table.
pub fn header() -> String {
    "| script | proxy | engine | plays | attempts | acting | mute | plain | regret | allowance | worse |\n\
     |---|---|---|---|---|---|---|---|---|---|---|"
        .into()
}

/// As a line of the table: slow/failed/wrong role/cut/wrong writer, each or worse.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { script, proxy, engine, plays, acting, .. } = self;
        if let Some(error) = &self.error {
            return write!(f, "| {script} | {proxy} | {engine} | {plays} | not played: {error} |");
        }
        let mute = zip(self.mute.bad(), self.mute_again.bad(), f64::midpoint);
        let worse = if self.worse.is_empty() { "-".into() } else { self.worse.join(", ") };
        write!(
            f,
            "| {script} | {proxy} | {engine} | {plays} | {} | {} | {} | {} | {} | {} | {worse} |",
            acting.attempts,
            joined(acting.bad()),
            joined(mute),
            joined(self.plain.bad()),
            joined(self.regret),
            joined(self.allowance),
        )
    }
}

fn joined(numbers: [f64; 5]) -> String {
    numbers.map(|number| number.to_string()).join("/")
}

/// Written anew after each row, so that a run that is cut short leaves what it found.
#[derive(Debug)]
pub struct Summary {
    file: PathBuf,
    rows: Vec<Row>,
}

impl Summary {
    pub fn begin(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self { file: folder.join("summary.json"), rows: Vec::new() })
    }

    pub fn add(&mut self, row: Row) -> io::Result<()> {
        self.rows.push(row);
        let text = serde_json::to_string_pretty(&self.rows).map_err(io::Error::other)?;
        let new = self.file.with_extension("new");
        fs::write(&new, text)?;
        fs::rename(&new, &self.file)
    }

    pub fn rows(&self) -> &[Row] {
        &self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::regret::all;

    fn row(acting: u32, mute: u32, again: u32, plain: u32) -> Row {
        let counts = |failed: u32| {
            let outcomes = (0..100).map(|n| if n < failed { Outcome::Failed } else { Outcome::Ok });
            outcomes.collect::<Counts>()
        };
        let script = all().into_iter().find(|script| !script.gains).unwrap();
        let mut row = Row::new(&script, script.cells[0]);
        let arms = [acting, mute, again, plain].map(counts);
        row.add(&Play { counts: ArmKind::ALL.into_iter().zip(arms).collect(), causes: BTreeMap::new() });
        row
    }

    #[test]
    fn regret_above_what_the_mutes_differ_by_is_worse() {
        assert!(row(0, 0, 0, 0).worse.is_empty());
        assert!(row(6, 5, 3, 9).worse.is_empty(), "2 more than the mean, and the mutes differ by 2");
        assert_eq!(row(7, 5, 3, 9).worse, ["slow +3 to mute", "failed +3 to mute"]);
        assert_eq!(row(1, 1, 1, 0).worse, ["slow +1 to plain", "failed +1 to plain"]);
    }
}
