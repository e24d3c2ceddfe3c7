//! The chart beside bench/RESULTS.md: the work for processor time of each proxy, nginx being 1.

use super::lab::{PEERS, Peer};
use super::results::{Row, beside};

const WIDTH: f64 = 900.0;
/// The width of the names on the left.
const MARGIN: f64 = 300.0;
const BAR: f64 = 13.0;
const GAP: f64 = 16.0;
const TOP: f64 = 64.0;

const STYLE: &str = "\
  text { font: 13px system-ui, sans-serif; fill: #1f2430; }
  .title { font-size: 16px; }
  .small { font-size: 12px; fill: #59606e; }
  .axis { stroke: #8a93a5; stroke-width: 1; stroke-dasharray: 3 3; }
  .gateway { fill: #2f66c4; } .nginx { fill: #3f9b5f; } .haproxy { fill: #8a93a5; }
  .pingora { fill: #c98a2b; } .node { fill: #b5534a; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6e9f0; } .small { fill: #a5adbd; } .axis { stroke: #6d7688; }
    .gateway { fill: #7fa8f0; } .nginx { fill: #6cc48b; }
  }
";

/// An SVG with a group of bars for each case.
pub fn svg(rows: &[Row], caption: &str) -> String {
    let mut groups: Vec<Vec<&Row>> = Vec::new();
    for row in rows {
        match groups.last_mut() {
            Some(group) if (group[0].case, group[0].policies) == (row.case, row.policies) => group.push(row),
            _ => groups.push(vec![row]),
        }
    }
    let work =
        |row: &Row| beside(rows, row, row.policies, Peer::Nginx).map_or(0.0, |nginx| row.work_against(nginx));
    let longest = rows.iter().map(work).fold(1.0, f64::max);
    let scale = (WIDTH - MARGIN - 60.0) / longest;
    let (mut bars, mut y) = (String::new(), TOP);
    for group in &groups {
        let middle = y + group.len() as f64 * BAR / 2.0 + 4.0;
        let name = format!("{}, {}", group[0].case.name, group[0].policies.name());
        bars.push_str(&format!(
            "<text x=\"{}\" y=\"{middle:.0}\" text-anchor=\"end\">{name}</text>\n",
            MARGIN - 12.0
        ));
        for row in group {
            let (work, class) = (work(row), row.peer.name().to_lowercase());
            let length = (work * scale).max(1.0);
            bars.push_str(&format!(
                "<rect class=\"{class}\" x=\"{MARGIN}\" y=\"{y:.0}\" width=\"{length:.1}\" height=\"{}\"/>\
                 <text class=\"small\" x=\"{:.1}\" y=\"{:.0}\">{work:.2}</text>\n",
                BAR - 2.0,
                MARGIN + length + 5.0,
                y + 10.0
            ));
            y += BAR;
        }
        y += GAP;
    }
    let mut legend = String::new();
    let shown = PEERS.into_iter().filter(|peer| rows.iter().any(|row| row.peer == *peer));
    for (number, peer) in shown.enumerate() {
        let x = MARGIN + 100.0 * number as f64;
        let class = peer.name().to_lowercase();
        legend.push_str(&format!(
            "<rect class=\"{class}\" x=\"{x}\" y=\"38\" width=\"11\" height=\"11\"/><text x=\"{}\" y=\"48\">{}</text>\n",
            x + 16.0,
            peer.name()
        ));
    }
    let (height, one) = (y + 24.0, MARGIN + scale);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" \
         aria-label=\"Work for processor time of each proxy, relative to nginx. The tables in RESULTS.md have the figures.\">\n\
         <style>\n{STYLE}</style>\n\
         <text class=\"title\" x=\"{MARGIN}\" y=\"22\">Requests for the same processor time, nginx = 1</text>\n\
         {legend}{bars}\
         <line class=\"axis\" x1=\"{one:.1}\" x2=\"{one:.1}\" y1=\"{}\" y2=\"{:.0}\"/>\n\
         <text class=\"small\" x=\"{MARGIN}\" y=\"{:.0}\">{caption}</text>\n</svg>\n",
        TOP - 6.0,
        y - GAP + 4.0,
        height - 8.0
    )
}
