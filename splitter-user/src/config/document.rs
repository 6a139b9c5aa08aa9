//! The text as a tree of values that know their place, and the problems found on the way.

use std::{collections::BTreeSet, fmt, sync::Arc};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    error::{Mark, Problem},
    schema::{Presence, Section},
    values,
};

/// Proof that a problem was reported: whoever holds one need not say anything more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reported(());

/// A value that was read, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

/// A configuration's text and what is wrong with it.
pub(super) struct Problems<'t> {
    file: Arc<str>,
    text: &'t str,
    list: Vec<Problem>,
}

impl<'t> Problems<'t> {
    pub(super) fn new(file: &str, text: &'t str) -> Self {
        Self { file: Arc::from(file), text, list: Vec::new() }
    }

    /// Notes a problem at an octet of the text.
    pub(super) fn report(&mut self, at: usize, place: &str, message: impl fmt::Display) -> Reported {
        let mark = Mark::new(&self.file, self.text, at);
        self.report_at(mark, place, message)
    }

    /// Notes a problem at a place of another file.
    pub(super) fn report_at(&mut self, mark: Mark, place: &str, message: impl fmt::Display) -> Reported {
        self.list.push(Problem { mark, place: place.to_owned(), message: message.to_string() });
        Reported(())
    }

    /// What an octet's place is called.
    pub(super) fn mark(&self, at: usize) -> Mark {
        Mark::new(&self.file, self.text, at)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All of them, in the order of the file; those of other files behind it.
    pub(super) fn into_sorted(mut self) -> Vec<Problem> {
        let main = Arc::clone(&self.file);
        self.list.sort_by(|a, b| (a.mark.file != main, &a.mark).cmp(&(b.mark.file != main, &b.mark)));
        self.list
    }

    /// The whole text as a tree. Text that isn't TOML gives its syntax errors, all of them, and nothing to go on with.
    pub(super) fn tree(&mut self) -> Result<Spanned<DeTable<'t>>, Reported> {
        let (tree, errors) = DeTable::parse_recoverable(self.text);
        let mut reported = None;
        for error in errors {
            let at = error.span().map_or(self.text.len(), |span| span.start);
            reported = Some(self.report(at, "", format_args!("not TOML: {}", error.message())));
        }
        reported.map_or(Ok(tree), Err)
    }
}

/// A table of the file: its keys are asked for by name, and those that nobody knows are reported as it is opened.
pub(super) struct Table<'v, 't> {
    keys: &'v DeTable<'t>,
    section: &'static Section,
    /// In words, such as `service "checkout"`.
    pub(super) place: String,
    /// Where it stands.
    pub(super) at: usize,
    /// Keys that an unknown one was probably meant to be: they aren't reported as missing as well.
    meant: BTreeSet<&'static str>,
}

impl<'v, 't> Table<'v, 't> {
    pub(super) fn open(
        keys: &'v DeTable<'t>,
        at: usize,
        section: &'static Section,
        place: &str,
        problems: &mut Problems<'_>,
    ) -> Self {
        let mut meant = BTreeSet::new();
        for key in keys.keys() {
            let name = key.get_ref().as_ref();
            if section.key(name).is_some() {
                continue;
            }
            let hint = if let Some(near) = section.nearest(name) {
                meant.insert(near);
                format!("did you mean \"{near}\"?")
            } else {
                let known = section.keys.iter().map(|key| key.name).collect::<Vec<_>>().join(", ");
                format!("{} takes {known}", section.heading)
            };
            problems.report(key.span().start, place, format_args!("unknown key \"{name}\", {hint}"));
        }
        Self { keys, section, place: place.to_owned(), at, meant }
    }

    /// A key that has a value in any case: its own or the default. A required key that is missing is reported.
    pub(super) fn value<T>(
        &self,
        key: &'static str,
        problems: &mut Problems<'_>,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Result<Found<T>, Reported> {
        if let Some(value) = self.get(key) {
            return self.read(key, value, problems, read);
        }
        let default = self.default(key, problems)?;
        self.read(key, &Spanned::new(self.at..self.at, default), problems, read)
    }

    /// A key that may be absent.
    pub(super) fn optional<T>(
        &self,
        key: &'static str,
        problems: &mut Problems<'_>,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Result<Option<Found<T>>, Reported> {
        self.get(key).map(|value| self.read(key, value, problems, read)).transpose()
    }

    /// A key that holds a list: its elements, each with its number from 0; a list without some that were reported says so.
    pub(super) fn list<T>(
        &self,
        key: &'static str,
        problems: &mut Problems<'_>,
        mut element: impl FnMut(usize, &Spanned<DeValue<'_>>, &mut Problems<'_>) -> Result<T, Reported>,
    ) -> List<T> {
        let mut list = List { found: Vec::new(), missing: None };
        let default;
        let value = match self.get(key) {
            Some(value) => value,
            None => match self.default(key, problems) {
                Ok(value) => {
                    default = Spanned::new(self.at..self.at, value);
                    &default
                }
                Err(reported) => return List { missing: Some(reported), ..list },
            },
        };
        let DeValue::Array(elements) = value.get_ref() else {
            let message = values::expected("a list", value.get_ref());
            list.missing = Some(problems.report(value.span().start, &self.inner(key), message));
            return list;
        };
        for (index, value) in elements.iter().enumerate() {
            match element(index, value, problems) {
                Ok(found) => list.found.push((index, Found { value: found, at: value.span().start })),
                Err(reported) => list.missing = Some(reported),
            }
        }
        list
    }

    /// A table inside this one.
    pub(super) fn table(
        &self,
        key: &'static str,
        section: &'static Section,
        place: &str,
        problems: &mut Problems<'_>,
    ) -> Result<Option<Table<'v, 't>>, Reported> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let at = value.span().start;
        match value.get_ref() {
            DeValue::Table(keys) => Ok(Some(Table::open(keys, at, section, place, problems))),
            other @ (DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)) => {
                let message = values::expected(&format!("a table {}", section.heading), other);
                Err(problems.report(at, place, message))
            }
        }
    }

    /// The value of a key, if it is written.
    pub(super) fn get(&self, key: &'static str) -> Option<&'v Spanned<DeValue<'t>>> {
        debug_assert!(self.section.key(key).is_some(), "{key} is not in the schema of {}", self.section.heading);
        self.keys.get(key)
    }

    /// The place of a key of this table in words.
    pub(super) fn inner(&self, key: &str) -> String {
        format!("{}, {key}", self.place)
    }

    /// Reports a missing key.
    pub(super) fn missing(&self, key: &'static str, problems: &mut Problems<'_>) -> Reported {
        self.absent(&[key], problems, format_args!("\"{key}\" is missing"))
    }

    /// Reports that none of these keys is there, with what to do about it.
    pub(super) fn absent(&self, keys: &[&'static str], problems: &mut Problems<'_>, message: impl fmt::Display) -> Reported {
        if keys.iter().any(|key| self.meant.contains(key)) {
            return Reported(()); // as the unknown key that it was meant to be
        }
        problems.report(self.at, &self.place, message)
    }

    fn default(&self, key: &'static str, problems: &mut Problems<'_>) -> Result<DeValue<'static>, Reported> {
        match self.section.key(key).map(|key| key.presence) {
            Some(Presence::Default(text)) => DeValue::parse(text)
                .map(Spanned::into_inner)
                .map_err(|why| problems.report(self.at, &self.inner(key), format_args!("the default is not TOML: {why}"))),
            Some(Presence::Required | Presence::Optional) | None => Err(self.missing(key, problems)),
        }
    }

    fn read<T>(
        &self,
        key: &'static str,
        value: &Spanned<DeValue<'_>>,
        problems: &mut Problems<'_>,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Result<Found<T>, Reported> {
        let at = value.span().start;
        match read(value.get_ref()) {
            Ok(value) => Ok(Found { value, at }),
            Err(message) => Err(problems.report(at, &self.inner(key), message)),
        }
    }
}

/// A list, and whether all of it could be read.
pub(super) struct List<T> {
    /// What could, with its number in the list from 0.
    pub(super) found: Vec<(usize, Found<T>)>,
    /// Something could not; it was reported.
    pub(super) missing: Option<Reported>,
}

impl<T> List<T> {
    /// Where the element of that number stands, if it could be read.
    pub(super) fn at(&self, index: usize) -> Option<usize> {
        self.found.iter().find(|(number, _)| *number == index).map(|(_, found)| found.at)
    }
}
