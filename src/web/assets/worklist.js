// The worklist page: rows that come, change and go without moving what the reader points at.
document.addEventListener("DOMContentLoaded", () => {
  const list = document.getElementById("list");
  if (!list) return;

  const rows = () => Array.from(list.querySelectorAll("tbody > tr"));
  const isAlarm = (row) => row.classList.contains("flagged") && row.classList.contains("unread");
  const flags = () => rows().filter(isAlarm).map((row) => row.dataset.flag);
  // What this list alone shows to be new, for the way to it.
  const alarms = new Set(flags());
  const others = ["counts", "notices", "pager"].map((id) => document.getElementById(id));
  for (const row of rows()) for (const cell of row.cells) triaged.remember(cell);
  for (const part of others) triaged.remember(part);
  triaged.prepare(document.body);

  // ---- What came above the part in sight.
  const above = document.getElementById("above");
  let unseen = new Set();
  const showAbove = () => {
    for (const flag of unseen) {
      const row = rows().find((row) => row.dataset.flag === flag);
      if (!row || row.getBoundingClientRect().bottom > 40) unseen.delete(flag);
    }
    above.hidden = unseen.size === 0;
    above.textContent = "▲ " + unseen.size + (unseen.size === 1 ? " new flagged study" : " new flagged studies") + " above";
  };
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  above.addEventListener("click", () => {
    scrollTo({ top: 0, behavior: still.matches ? "instant" : "smooth" });
    unseen.clear();
    showAbove();
  });
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
        const had = list.contains(document.activeElement);
        list.replaceChildren(...Array.from(fresh.childNodes, (node) => document.importNode(node, true)));
        if (had) { list.tabIndex = -1; list.focus({ preventScroll: true }); }
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
        row.dataset.flag = freshRow.dataset.flag;
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
    // Of a row that goes, the next one takes the focus.
    const goes = Array.from(known.values()).find((row) => row.contains(focused));
    const stays = (row, step) => { do row = row[step]; while (row && known.has(row.dataset.uid)); return row; };
    const next = goes && (stays(goes, "nextElementSibling") ?? stays(goes, "previousElementSibling"));
    for (const row of known.values()) row.remove();
    if (next) next.querySelector("a.main").focus({ preventScroll: true });
    // A node that is moved loses the focus.
    else if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
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
    const present = flags();
    const come = present.filter((flag) => !alarms.has(flag));
    alarms.clear();
    present.forEach((flag) => alarms.add(flag));
    come.forEach((flag) => unseen.add(flag));
    triaged.alarm.rows(present);
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
  // A choice in the filter is applied when it was made: with a pointer at once, with the keyboard by Enter or on leaving, for a closed list
  // changes with each arrow key. Empty ones stay out of the address.
  const search = document.getElementById("search");
  const go = () => {
    const chosen = new URLSearchParams(Array.from(new FormData(search)).filter(([, value]) => value !== ""));
    location.assign(chosen.size ? "/?" + chosen : "/");
  };
  let byKeyboard = false;
  let chosen = null;
  search.addEventListener("submit", (event) => { event.preventDefault(); go(); });
  search.addEventListener("pointerdown", () => { byKeyboard = false; });
  search.addEventListener("keydown", (event) => {
    byKeyboard = true;
    if (event.key === "Enter" && event.target.matches("select") && chosen === event.target) { event.preventDefault(); go(); }
  });
  search.addEventListener("change", (event) => {
    if (!event.target.matches("select")) return;
    if (byKeyboard) chosen = event.target;
    else go();
  });
  search.addEventListener("focusout", (event) => { if (chosen === event.target && !search.contains(event.relatedTarget?.closest?.("button"))) go(); });
});
