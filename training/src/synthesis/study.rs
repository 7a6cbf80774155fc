//! One synthetic study: which bleed and which of its like are drawn into which head.

use triaged_imaging::phantom::Lesion;

use super::chance::Chance;
use super::drawing::{Drawing, Head};
use super::extra_axial::Collection;
use super::fluid::{Intraventricular, Subarachnoid};
use super::focal::Focus;
use super::mimic::Mimic;

/// What is drawn, in turn: a fifth of the studies has no blood, only what looks like it.
const TURNS: [Option<Kind>; 10] = [
    Some(Kind::Subdural),
    Some(Kind::Epidural),
    Some(Kind::Contusion),
    None,
    Some(Kind::Subarachnoid),
    Some(Kind::Subdural),
    Some(Kind::Intraventricular),
    Some(Kind::Contusion),
    None,
    Some(Kind::Deep),
];
/// Draws of a bleed until one shows enough of it.
const TRIES: usize = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Subdural,
    Epidural,
    Contusion,
    Deep,
    Subarachnoid,
    Intraventricular,
}

/// Draws the study of a seed; `turn` says which kind it is. Returns what it has, for people.
pub fn draw(drawing: &mut Drawing, turn: u64, seed: u64) -> Vec<&'static str> {
    let mut chance = Chance::new(seed);
    let mut names = Vec::new();
    if drawing.head.anatomy.usable().len() < 4 {
        return names;
    }
    let kind = TURNS[(turn % TURNS.len() as u64) as usize];
    let mimics = match kind {
        None => 1 + usize::from(chance.is(0.6)) + usize::from(chance.is(0.3)),
        Some(_) => usize::from(chance.is(0.4)) + usize::from(chance.is(0.15)),
    };
    let mimics: Vec<Mimic> = (0..mimics).map(|_| chance.of(&Mimic::ALL)).collect();
    let noise = (seed % 97) as usize;
    for mimic in mimics.iter().filter(|mimic| !mimic.is_last()) {
        mimic.draw(&mut chance, drawing, noise);
    }
    if let Some(kind) = kind {
        // What a head has no room for gives way to a crescent, which all have.
        let bled = (0..TRIES).any(|_| bleed(kind, &mut chance, drawing, noise))
            || (0..TRIES).any(|_| bleed(Kind::Subdural, &mut chance, drawing, noise));
        // After a fall blood is seldom in one place only.
        if bled && matches!(kind, Kind::Subdural | Kind::Contusion | Kind::Epidural) && chance.is(0.2) {
            let second = if kind == Kind::Subdural { Kind::Contusion } else { Kind::Subdural };
            let second = chance.of(&[Kind::Subarachnoid, second]);
            bleed(second, &mut chance, drawing, noise + 1);
        }
    }
    for mimic in mimics.iter().filter(|mimic| mimic.is_last()) {
        mimic.draw(&mut chance, drawing, noise);
    }
    names.extend(mimics.into_iter().map(Mimic::name));
    names
}

fn bleed(kind: Kind, chance: &mut Chance, drawing: &mut Drawing, noise: usize) -> bool {
    let head: &Head = drawing.head;
    match kind {
        Kind::Subdural => Collection::subdural(chance, head).draw(drawing, noise),
        Kind::Epidural => Collection::epidural(chance, head).draw(drawing, noise),
        Kind::Contusion => draw_all(Focus::contusions(chance, head), drawing, noise),
        Kind::Deep => draw_all(Focus::deep(chance, head), drawing, noise),
        Kind::Subarachnoid => Subarachnoid::new(chance, head).is_some_and(|bleed| bleed.draw(drawing, noise)),
        Kind::Intraventricular => Intraventricular::new(chance, head).is_some_and(|bleed| bleed.draw(drawing, noise)),
    }
}

/// All of them; whether one shows.
fn draw_all(foci: Vec<Focus>, drawing: &mut Drawing, noise: usize) -> bool {
    let mut shown = false;
    for focus in &foci {
        shown |= focus.draw(drawing, noise);
    }
    shown
}

/// The kinds of blood in the order of the label file.
pub fn label_names() -> [&'static str; 5] {
    let mut names = Lesion::ALL.map(Lesion::name);
    names.sort_unstable();
    names
}
