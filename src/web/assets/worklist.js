// The worklist page: rows that come, change and go without moving what the reader points at.
document.addEventListener("DOMContentLoaded", () => {
  const list = document.getElementById("list");
  if (!list) return;

  const rows = () => Array.from(list.querySelectorAll("tbody > tr"));
  const isAlarm = (row) => row.classList.contains("flagged") && row.classList.contains("unread");
  const alarms = new Set(rows().filter(isAlarm).map((row) => row.dataset.uid));
  const others = ["counts", "notices", "pager"].map((id) => document.getElementById(id));
  for (const row of rows()) for (const cell of row.cells) triaged.remember(cell);
  for (const part of others) triaged.remember(part);
  triaged.prepare(document.body);

  // ---- Sound and notification.
  const button = document.getElementById("alerts");
  let alerting = triaged.memory.get("alerts") === "on";
  let sound = null;
  const showAlerts = () => {
    button.setAttribute("aria-pressed", String(alerting));
    const waits = alerting && (!sound || sound.state !== "running");
    button.textContent = "Sound and notification: " + (alerting ? (waits ? "on, click once for sound" : "on") : "off");
  };
  const wakeSound = async () => {
    sound ??= new AudioContext();
    await sound.resume();
    showAlerts();
  };
  const beep = () => {
    if (!sound || sound.state !== "running") return;
    // Two tones, twice: not a sound that other devices of a ward make.
    [[880, 0], [660, 0.18], [880, 0.5], [660, 0.68]].forEach(([hertz, at]) => {
      const tone = new OscillatorNode(sound, { frequency: hertz, type: "triangle" });
      const level = new GainNode(sound, { gain: 0 });
      const start = sound.currentTime + at;
      level.gain.setValueAtTime(0, start);
      level.gain.linearRampToValueAtTime(0.25, start + 0.02);
      level.gain.linearRampToValueAtTime(0, start + 0.16);
      tone.connect(level).connect(sound.destination);
      tone.start(start);
      tone.stop(start + 0.17);
    });
  };
  button.addEventListener("click", async () => {
    if (alerting && sound && sound.state !== "running") { await wakeSound(); beep(); return; }
    alerting = !alerting;
    triaged.memory.set("alerts", alerting ? "on" : "off");
    showAlerts();
    if (!alerting) return;
    await wakeSound();
    beep();
    if ("Notification" in window && Notification.permission === "default") await Notification.requestPermission();
  });
  triaged.listenWhileHidden(() => alerting);
  // A browser plays no sound before the reader has done something on the page.
  if (alerting) document.addEventListener("pointerdown", () => { if (alerting) wakeSound(); }, { once: true });
  showAlerts();

  const alarm = (count) => {
    const words = count === 1 ? "1 new flagged study" : count + " new flagged studies";
    triaged.announce(words);
    if (!alerting) return;
    beep();
    if ("Notification" in window && Notification.permission === "granted") {
      // No name and no number: others see the screen.
      const note = new Notification(words, { body: "The worklist shows it on top.", tag: "triaged" });
      note.onclick = () => { window.focus(); scrollTo({ top: 0 }); note.close(); };
    }
  };

  // ---- What came above the part in sight.
  const above = document.getElementById("above");
  let unseen = new Set();
  const showAbove = () => {
    for (const uid of unseen) {
      const row = rows().find((row) => row.dataset.uid === uid);
      if (!row || row.getBoundingClientRect().bottom > 40) unseen.delete(uid);
    }
    above.hidden = unseen.size === 0;
    above.textContent = "▲ " + unseen.size + (unseen.size === 1 ? " new flagged study" : " new flagged studies") + " above";
  };
  above.addEventListener("click", () => { scrollTo({ top: 0, behavior: "smooth" }); unseen.clear(); showAbove(); });
  addEventListener("scroll", showAbove, { passive: true });

  // ---- The row that stays where it is: under the pointer, or with the focus.
  let pointed = null;
  list.addEventListener("pointerover", (event) => { pointed = event.target.closest("tbody > tr")?.dataset.uid ?? null; });
  list.addEventListener("pointerleave", () => {
    pointed = null;
    list.style.marginTop = "";
  });
  const anchor = () => {
    const focused = document.activeElement?.closest?.("#list tbody > tr");
    return rows().find((row) => row.dataset.uid === pointed) ?? focused ?? null;
  };
  const stay = (row, top) => {
    if (!row || !row.isConnected) return;
    const moved = row.getBoundingClientRect().top - top;
    if (moved === 0) return;
    // The page may be too short to scroll so far.
    const lacks = scrollY + moved + innerHeight - document.documentElement.scrollHeight;
    if (lacks > 0) list.style.paddingBottom = lacks + parseFloat(list.style.paddingBottom || "0") + "px";
    scrollBy({ top: moved, behavior: "instant" });
    const rest = row.getBoundingClientRect().top - top;
    if (rest < 0) list.style.marginTop = parseFloat(list.style.marginTop || "0") - rest + "px";
  };

  const takeRows = (fresh) => {
    const body = list.querySelector("tbody");
    const freshBody = fresh.querySelector("tbody");
    if (!body || !freshBody) {
      if (list.innerHTML !== fresh.innerHTML) {
        list.replaceChildren(...Array.from(fresh.childNodes, (node) => document.importNode(node, true)));
        for (const row of rows()) for (const cell of row.cells) triaged.remember(cell);
        triaged.prepare(list);
      }
      return;
    }
    const known = new Map(rows().map((row) => [row.dataset.uid, row]));
    const focused = document.activeElement;
    let place = body.firstElementChild;
    for (const freshRow of Array.from(freshBody.children)) {
      let row = known.get(freshRow.dataset.uid);
      known.delete(freshRow.dataset.uid);
      if (row) {
        if (row.className !== freshRow.className) row.className = freshRow.className;
        Array.from(freshRow.cells).forEach((cell, n) => triaged.replace(row.cells[n], cell));
      } else {
        row = document.importNode(freshRow, true);
        for (const cell of row.cells) triaged.remember(cell);
        triaged.prepare(row);
        row.classList.add("new");
        row.addEventListener("animationend", () => row.classList.remove("new"), { once: true });
      }
      if (row === place) place = place.nextElementSibling;
      else body.insertBefore(row, place);
    }
    for (const row of known.values()) row.remove();
    // A node that is moved loses the focus.
    if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
  };

  triaged.onPage((page) => {
    const fresh = page.getElementById("list");
    if (!fresh) return;
    const kept = anchor();
    const top = kept?.getBoundingClientRect().top;
    takeRows(fresh);
    for (const part of others) triaged.replace(part, page.getElementById(part.id));
    stay(kept, top);
    document.title = page.title;
    const present = rows().filter(isAlarm).map((row) => row.dataset.uid);
    const come = present.filter((uid) => !alarms.has(uid));
    alarms.clear();
    present.forEach((uid) => alarms.add(uid));
    if (come.length > 0) {
      alarm(come.length);
      come.forEach((uid) => unseen.add(uid));
    }
    showAbove();
  });

  // ---- Arrow keys go from row to row.
  list.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const row = event.target.closest("tbody > tr");
    const next = event.key === "ArrowDown" ? row?.nextElementSibling : row?.previousElementSibling;
    if (!next) return;
    event.preventDefault();
    next.querySelector("a.main").focus();
  });
  // A choice in the filter is applied at once, and empty ones stay out of the address.
  const search = document.getElementById("search");
  const go = () => {
    const chosen = new URLSearchParams(Array.from(new FormData(search)).filter(([, value]) => value !== ""));
    location.assign(chosen.size ? "/?" + chosen : "/");
  };
  search.addEventListener("submit", (event) => { event.preventDefault(); go(); });
  search.addEventListener("change", (event) => { if (event.target.matches("select")) go(); });
});
