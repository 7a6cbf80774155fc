// The study page: a stack of slices under wheel, arrow keys and chart.
document.addEventListener("DOMContentLoaded", () => {
  const parts = Array.from(document.querySelectorAll("[data-part]"));
  if (parts.length === 0) return;
  parts.forEach(triaged.remember);
  triaged.prepare(document.body);

  const image = document.getElementById("slice");
  let chosen = 0;
  let windowName = "brain";
  let playing = 0;
  const bars = () => Array.from(document.querySelectorAll(".chart svg > a"));

  // ---- Pictures: the one that is shown, and those around it, are fetched ahead.
  const pictures = new Map();
  const address = (bar, name) => bar.dataset.image + "?window=" + name;
  const picture = (url) => {
    let made = pictures.get(url);
    if (!made) {
      made = new Image();
      made.src = url;
      pictures.set(url, made);
      // The oldest go first.
      if (pictures.size > 400) pictures.delete(pictures.keys().next().value);
    }
    return made;
  };
  const AHEAD = 4;

  // ---- What the model marks on a slice: a box, and its map beneath where it is asked for.
  const overlay = document.getElementById("overlay");
  const marksButton = document.getElementById("marks");
  let marks = marksButton?.getAttribute("aria-pressed") !== "false";
  let heat = false;
  const inSvg = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const draw = (bar) => {
    overlay.replaceChildren();
    const isMarked = marks && bar.dataset.box !== undefined;
    overlay.toggleAttribute("hidden", !isMarked);
    marksButton.setAttribute("aria-pressed", String(marks));
    const hasMarks = bars().some((bar) => bar.dataset.box !== undefined);
    for (const part of [marksButton, document.getElementById("marks-hint")]) part.hidden = !hasMarks;
    if (!isMarked) return;
    overlay.setAttribute("viewBox", bar.dataset.view);
    if (heat) {
      const [, , width, height] = bar.dataset.view.split(" ");
      overlay.append(inSvg("image", { href: bar.dataset.image + "/heat-map", width, height, preserveAspectRatio: "none" }));
    }
    const [x, y, width, height] = bar.dataset.box.split(" ");
    for (const name of ["halo", "mark"]) overlay.append(inSvg("rect", { class: name, x, y, width, height }));
  };

  const show = (number) => {
    const all = bars();
    if (all.length === 0) return;
    chosen = Math.max(0, Math.min(all.length - 1, number));
    const bar = all[chosen];
    const label = bar.getAttribute("aria-label");
    const url = address(bar, windowName);
    picture(url);
    if (image.getAttribute("src") !== url) image.src = url;
    draw(bar);
    image.alt = label + ", " + windowName + " window";
    document.getElementById("caption").textContent = (chosen + 1) + " of " + all.length + " · " + label;
    document.querySelector(".chart svg > a.shown")?.classList.remove("shown");
    bar.classList.add("shown");
    const slider = document.getElementById("slider");
    slider.max = all.length;
    slider.value = chosen + 1;
    slider.setAttribute("aria-valuetext", label);
    for (const link of document.querySelectorAll("[data-window]")) {
      if (link.dataset.window === windowName) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
    const query = new URLSearchParams({ series: document.querySelector(".chart").dataset.series, slice: chosen + 1, window: windowName });
    if (!marks) query.set("marks", "off");
    try { history.replaceState(null, "", "?" + query + location.hash); } catch { /* too many a second; the next one will do */ }
    for (let ahead = 1; ahead <= AHEAD; ahead++) {
      for (const near of [all[chosen + ahead], all[chosen - ahead]]) if (near) picture(address(near, windowName));
    }
  };

  if (image) {
    const all = bars();
    chosen = Math.max(0, all.findIndex((bar) => bar.classList.contains("shown")));
    windowName = document.querySelector("[data-window][aria-current]")?.dataset.window ?? "brain";
    const missing = document.getElementById("no-picture");
    image.addEventListener("load", () => { missing.hidden = true; image.classList.remove("failed"); });
    image.addEventListener("error", async () => {
      image.classList.add("failed");
      missing.hidden = false;
      missing.textContent = "This slice cannot be shown.";
      try {
        const answer = await fetch(image.src);
        if (!answer.ok) missing.textContent = (await answer.json()).error;
      } catch { /* the bar above says that the node is gone */ }
    });
    // The first one may have failed before this script ran.
    if (image.complete && image.naturalWidth === 0) image.dispatchEvent(new Event("error"));

    const stop = () => {
      clearInterval(playing);
      playing = 0;
      const button = document.getElementById("cine");
      button.setAttribute("aria-pressed", "false");
      button.textContent = "Cine";
    };
    const mark = (change) => { change(); show(chosen); };
    marksButton.addEventListener("click", (event) => { event.preventDefault(); mark(() => { marks = !marks; }); });
    const step = (by) => { stop(); show(chosen + by); };
    document.getElementById("before").addEventListener("click", (event) => { event.preventDefault(); step(-1); });
    document.getElementById("after").addEventListener("click", (event) => { event.preventDefault(); step(1); });
    for (const id of ["before", "after"]) {
      document.getElementById(id).setAttribute("href", "#viewer");
      document.getElementById(id).removeAttribute("aria-disabled");
    }
    document.getElementById("cine").addEventListener("click", () => {
      if (playing) { stop(); return; }
      const button = document.getElementById("cine");
      button.setAttribute("aria-pressed", "true");
      button.textContent = "Stop";
      playing = setInterval(() => {
        // It waits for a picture that is not there yet.
        if (image.complete) show((chosen + 1) % bars().length);
      }, 120);
    });
    document.getElementById("slider").addEventListener("input", (event) => { stop(); show(Number(event.target.value) - 1); });
    for (const link of document.querySelectorAll("[data-window]")) {
      link.addEventListener("click", (event) => {
        event.preventDefault();
        windowName = link.dataset.window;
        show(chosen);
      });
    }
    const viewer = document.getElementById("viewer");
    viewer.addEventListener("click", (event) => {
      const bar = event.target.closest("svg > a");
      if (!bar || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      stop();
      show(bars().indexOf(bar));
    });
    // A wheel turns by notches, a touchpad by pixels.
    let turned = 0;
    document.getElementById("screen").addEventListener("wheel", (event) => {
      event.preventDefault();
      turned += event.deltaMode === 0 ? event.deltaY / 50 : event.deltaY;
      const steps = Math.trunc(turned);
      if (steps !== 0) { turned -= steps; step(Math.sign(steps) * Math.min(3, Math.abs(steps))); }
    }, { passive: false });
    let dragged = null;
    const screen = document.getElementById("screen");
    screen.addEventListener("pointerdown", (event) => { screen.focus({ preventScroll: true }); dragged = { y: event.clientY, from: chosen }; });
    screen.addEventListener("pointermove", (event) => {
      if (!dragged || event.buttons === 0) { dragged = null; return; }
      const steps = Math.round((event.clientY - dragged.y) / 12);
      if (dragged.from + steps !== chosen) { stop(); show(dragged.from + steps); }
    });
    addEventListener("pointerup", () => { dragged = null; });
    image.addEventListener("dragstart", (event) => event.preventDefault());
    document.addEventListener("keydown", (event) => {
      if (event.target.closest("input, textarea, select, [contenteditable]") || event.altKey || event.ctrlKey || event.metaKey) return;
      // Only what is done in the viewer is for it: a table beneath scrolls by the same keys.
      const active = document.activeElement;
      const inViewer = viewer.contains(active) || ((!active || active === document.body) && screen.matches(":hover"));
      if (!inViewer) return;
      if (event.key === "m" || event.key === "M") { mark(() => { marks = !marks; }); return; }
      if (event.key === "h" || event.key === "H") { mark(() => { heat = !heat || !marks; marks = true; }); return; }
      const to = { ArrowDown: chosen + 1, ArrowRight: chosen + 1, ArrowUp: chosen - 1, ArrowLeft: chosen - 1, Home: 0, End: bars().length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      stop();
      show(to);
    });
    show(chosen);
  }

  triaged.onPage((page) => {
    const had = bars().length;
    for (const part of parts) {
      const fresh = page.querySelector(`[data-part="${part.dataset.part}"]`);
      if (fresh) triaged.replace(part, fresh);
    }
    // The first slice of a study that was empty when the page was opened, or the feedback of one that has a verdict now.
    const misses = (selector) => !document.querySelector(selector) && page.querySelector(selector);
    if (misses("#slice") || misses('[data-part="feedback"]')) { location.reload(); return; }
    if (image && (bars().length !== had || !document.querySelector(".chart svg > a.shown"))) show(chosen);
    else if (image) draw(bars()[chosen]);
    document.title = page.title;
  });
});
