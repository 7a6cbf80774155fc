// The alarm: sound, notification and title. It is about the whole node, whatever the page shows of it, and about the page itself: one
// that can tell nothing any more says so, in another tone.
triaged.alarm = (() => {
  let alerting = triaged.memory.get("alerts") === "on";
  let sound = null;
  const button = () => document.getElementById("alerts");
  const showAlerts = () => {
    const place = button();
    if (!place) return;
    place.setAttribute("aria-pressed", String(alerting));
    const waits = alerting && (!sound || sound.state !== "running");
    place.textContent = "Sound and notification: " + (alerting ? (waits ? "on, click once for sound" : "on") : "off");
  };
  const wakeSound = async () => {
    sound ??= new AudioContext();
    await sound.resume();
    showAlerts();
  };
  const play = (tones) => {
    if (!sound || sound.state !== "running") return;
    tones.forEach(([hertz, at, lasts]) => {
      const tone = new OscillatorNode(sound, { frequency: hertz, type: "triangle" });
      const level = new GainNode(sound, { gain: 0 });
      const start = sound.currentTime + at;
      level.gain.setValueAtTime(0, start);
      level.gain.linearRampToValueAtTime(0.25, start + 0.02);
      level.gain.linearRampToValueAtTime(0, start + lasts);
      tone.connect(level).connect(sound.destination);
      tone.start(start);
      tone.stop(start + lasts + 0.01);
    });
  };
  // Two tones, twice: not a sound that other devices of a ward make.
  const FLAG = [[880, 0, 0.16], [660, 0.18, 0.16], [880, 0.5, 0.16], [660, 0.68, 0.16]];
  // Three low ones, falling: nothing was found, the page has failed.
  const FAILURE = [[330, 0, 0.3], [277, 0.35, 0.3], [220, 0.7, 0.5]];
  const notify = (words, body, tag) => {
    if (!("Notification" in window) || Notification.permission !== "granted") return;
    // No name and no number: others see the screen.
    const note = new Notification(words, { body, tag });
    note.onclick = () => { window.focus(); scrollTo({ top: 0 }); note.close(); };
  };

  document.addEventListener("DOMContentLoaded", () => {
    showAlerts();
    button()?.addEventListener("click", async () => {
      if (alerting && sound && sound.state !== "running") { await wakeSound(); play(FLAG); return; }
      alerting = !alerting;
      triaged.memory.set("alerts", alerting ? "on" : "off");
      showAlerts();
      if (!alerting) return;
      await wakeSound();
      play(FLAG);
      if ("Notification" in window && Notification.permission === "default") await Notification.requestPermission();
    });
    // A browser plays no sound before the reader has done something on the page.
    for (const deed of ["pointerdown", "keydown"]) document.addEventListener(deed, () => { if (alerting) wakeSound(); }, { once: true });
  });

  // ---- Studies that are flagged and unread. What a page knew is kept from one page to the next.
  const KEPT = 600000;
  let known = null;
  try {
    const kept = JSON.parse(sessionStorage.getItem("triaged.flags"));
    if (Date.now() - kept.at < KEPT) known = new Set(kept.flags);
  } catch { /* there is none, or the browser keeps nothing */ }
  const keep = () => {
    try { sessionStorage.setItem("triaged.flags", JSON.stringify({ at: Date.now(), flags: Array.from(known) })); } catch { /* so it is silent once more */ }
  };
  const raise = (count) => {
    const words = count === 1 ? "1 new flagged study" : count + " new flagged studies";
    triaged.announce(words);
    if (!alerting) return;
    play(FLAG);
    notify(words, "The worklist shows it on top.", "triaged");
  };

  // ---- The page's own failing: said at once, and again while it lasts.
  const AGAIN = 120000;
  let failing = 0;
  const MARK = "⚠ ";
  const title = (words) => {
    const bare = document.title.startsWith(MARK) ? document.title.slice(document.title.indexOf(": ") + 2) : document.title;
    document.title = words ? MARK + words + ": " + bare : bare;
  };
  const sayFailure = (words) => {
    if (!alerting) return;
    play(FAILURE);
    notify("triaged can no longer tell you", words, "triaged-failure");
  };

  return {
    isOn: () => alerting,
    // The node's unread flags. `shown`: how many the page had when it came.
    flags(list, shown) {
      const come = known ? list.filter((flag) => !known.has(flag)).length : Math.max(0, list.length - shown);
      known = new Set(list);
      keep();
      if (come > 0) raise(come);
    },
    // Those of a page that was fetched: they count where the node's own list has not come.
    rows(list) {
      if (!known) return;
      const come = list.filter((flag) => !known.has(flag));
      come.forEach((flag) => known.add(flag));
      keep();
      if (come.length > 0) raise(come.length);
    },
    // `short` stands before the page's title.
    fail(words, short) {
      title(short);
      if (failing && Date.now() - failing < AGAIN) return;
      failing = Date.now();
      sayFailure(words);
    },
    recover() {
      title("");
      failing = 0;
    },
    warn(words) {
      if (!alerting) return;
      play(FAILURE);
      notify(words, "The worklist sounds only while you are logged in.", "triaged-failure");
    },
  };
})();
