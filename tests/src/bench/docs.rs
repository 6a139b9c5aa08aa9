//! docs/benchmarks.md and docs/benchmarks-steps.md: prose by hand, and between markers what the bench has measured.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::{
    cost::Row,
    machine::Machine,
    plot,
    report::Report,
    tables::{self, Medium},
};

/// Writes what was measured into the pages; parts that were not measured stay as they are. The picture is drawn anew with a packet's costs: what
/// wasn't measured with them isn't in it.
///
/// # Errors
/// A page isn't there, lacks a part, or can't be written.
pub fn write(directory: &Path, report: &Report) -> Result<()> {
    let cost: Vec<_> = report.cost.iter().map(|cost| Row { cost: cost.clone(), other: None }).collect();
    let parts = [
        ("benchmarks.md", "cost", cost.is_empty(), tables::cost(&cost, Medium::Page)),
        ("benchmarks.md", "wire", report.wire.is_empty(), tables::wire(&report.wire, Medium::Page)),
        ("benchmarks.md", "scale", report.scale.is_empty(), tables::scale(&report.scale, Medium::Page)),
        ("benchmarks-steps.md", "steps", report.steps.is_empty(), tables::steps(&report.steps, Medium::Page)),
    ];
    for (page, part, is_empty, table) in parts {
        if !is_empty {
            let path = directory.join(page);
            let page = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            let page = replace(&page, part, &measured(&report.machine, &table)).with_context(|| path.display().to_string())?;
            fs::write(&path, page).with_context(|| format!("writing {}", path.display()))?;
        }
    }
    if !report.cost.is_empty() {
        let picture = plot::svg(report)?;
        let path = directory.join("benchmarks.svg");
        fs::write(&path, picture).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Puts a text between a part's markers, `<!-- begin NAME -->` and `<!-- end NAME -->`.
///
/// # Errors
/// The page has no such part.
pub fn replace(page: &str, part: &str, text: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- begin {part} -->\n"), format!("<!-- end {part} -->"));
    let missing = || format!("the page has no part {part:?}, between {:?} and {end:?}", begin.trim_end());
    let (before, rest) = page.split_once(&begin).with_context(missing)?;
    let (_, after) = rest.split_once(&end).with_context(missing)?;
    Ok(format!("{before}{begin}\n{}\n\n{end}{after}", text.trim()))
}

/// A table with where it comes from.
#[must_use]
pub fn measured(machine: &Machine, table: &str) -> String {
    let Machine { cpu, cores, kernel, date, command } = machine;
    format!("`{command}`, {date}: {cpu}, {cores} cores, Linux {kernel}.\n\n{table}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_replaced_and_all_else_stays() {
        let page = "# Title\n\n<!-- begin cost -->\nold\n<!-- end cost -->\n\nprose\n";
        let once = replace(page, "cost", "| new |\n").expect("the part is there");
        assert_eq!(once, "# Title\n\n<!-- begin cost -->\n\n| new |\n\n<!-- end cost -->\n\nprose\n");
        assert_eq!(replace(&once, "cost", "| new |\n").expect("still there"), once);
        assert!(replace(page, "wire", "").is_err());
    }
}
