// The script of all pages. Without it they work, too: it keeps them up to date, tells times in the reader's zone, and saves
// the way back. Nothing here makes markup of text: pages come as documents, and their nodes are taken over.
"use strict";

const triaged = (() => {
  const root = document.documentElement;
  root.classList.add("script");

  // A store that a browser may refuse.
  const memory = {
    get(key) { try { return localStorage.getItem("triaged." + key); } catch { return null; } },
    set(key, value) { try { localStorage.setItem("triaged." + key, value); } catch { /* it is asked again next time */ } },
  };

  // ---- Theme: before anything is drawn.
  const themes = ["system", "dark", "light"];
  let theme = themes.includes(memory.get("theme")) ? memory.get("theme") : "system";
  const showTheme = () => {
    root.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) button.textContent = "Theme: " + theme;
  };
  showTheme();

  // ---- Times.
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
  const age = (seconds) => {
    if (seconds < 60) return Math.max(0, Math.floor(seconds)) + " s";
    if (seconds < 3600) return Math.floor(seconds / 60) + " min";
    if (seconds < 86400) return Math.floor(seconds / 3600) + " h " + Math.floor(seconds % 3600 / 60) + " min";
    return Math.floor(seconds / 86400) + " d";
  };
  // The node's clock may be another than the browser's.
  let skew = 0;
  const now = () => Date.now() + skew;
  const tellTime = (element) => {
    const at = new Date(element.dateTime);
    if (isNaN(at)) return;
    const today = at.toDateString() === new Date(now()).toDateString();
    const local = (today ? "" : day.format(at) + ", ") + clock.format(at);
    const text = element.classList.contains("age") ? age((now() - at) / 1000) : local;
    if (element.textContent !== text) element.textContent = text;
    const title = element.classList.contains("age") ? local + " (" + element.dateTime + ")" : element.dateTime;
    if (element.title !== title) element.title = title;
  };
  const tellTimes = (within) => within.querySelectorAll("time").forEach(tellTime);

  // ---- Parts of a page that are replaced where the node has something new. What the node sent is kept beside each, because
  // times and names are written into it here.
  const sent = new WeakMap();
  const remember = (element) => sent.set(element, element.innerHTML);
  const focusPath = (within) => {
    const focused = document.activeElement;
    if (!focused || !within.contains(focused)) return null;
    const same = (element) => element.tagName === focused.tagName && element.getAttribute("href") === focused.getAttribute("href")
      && element.getAttribute("name") === focused.getAttribute("name") && element.value === focused.value
      && element.dataset.copy === focused.dataset.copy;
    return (into) => Array.from(into.querySelectorAll(focused.tagName)).find(same);
  };
  // Takes over the children of `fresh`. What a person is writing in stays as it is.
  const replace = (element, fresh) => {
    if (sent.get(element) === fresh.innerHTML) return false;
    const focused = document.activeElement;
    const writes = element.contains(focused) && focused.matches("input:not([type=hidden]), textarea, select");
    const written = Array.from(element.querySelectorAll("input:not([type=hidden]), textarea")).some((field) => field.value !== field.defaultValue && !field.dataset.remember);
    if (writes || written) return false;
    const find = focusPath(element);
    const html = fresh.innerHTML;
    element.replaceChildren(...Array.from(fresh.childNodes, (node) => document.importNode(node, true)));
    sent.set(element, html);
    prepare(element);
    if (find) find(element)?.focus({ preventScroll: true });
    return true;
  };

  // ---- What a page needs after it came.
  const copy = async (button) => {
    const text = button.dataset.copy;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Without TLS a browser has no clipboard for scripts but this one.
      const field = document.createElement("textarea");
      field.value = text;
      document.body.append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
      button.focus({ preventScroll: true });
    }
    const words = button.textContent;
    button.textContent = "copied";
    announce("Copied");
    setTimeout(() => { button.textContent = words; }, 1500);
  };
  const prepare = (within) => {
    tellTimes(within);
    within.querySelectorAll("[data-remember]").forEach((field) => {
      if (!field.value) field.value = memory.get(field.dataset.remember) ?? "";
    });
  };

  const announce = (text) => {
    const place = document.getElementById("announcements");
    place.textContent = "";
    setTimeout(() => { place.textContent = text; }, 50);
  };

  // ---- The page anew. `apply` takes over what is new of the document.
  let apply = () => {};
  let contact = now();
  let gone = false;
  let fetching = false;
  let again = false;
  let last = 0;
  let timer = 0;
  // At least so long between two fetches, in milliseconds.
  const PAUSE = 600;
  const fetchPage = () => {
    if (fetching) { again = true; return; }
    fetching = true;
    last = Date.now();
    const request = new XMLHttpRequest();
    request.open("GET", location.href.split("#")[0]);
    request.responseType = "document";
    request.timeout = 10000;
    request.onload = () => {
      // The session has ended.
      if (new URL(request.responseURL || location.href).pathname === "/login") { location.assign(request.responseURL); return; }
      if (request.status === 200 && request.response) {
        const date = Date.parse(request.getResponseHeader("date"));
        // To the second; a smaller difference is the way.
        if (!isNaN(date) && Math.abs(date - Date.now()) > 5000) skew = date - Date.now();
        heard();
        apply(request.response);
      }
    };
    request.onloadend = () => {
      fetching = false;
      if (again) { again = false; refresh(); }
    };
    request.send();
  };
  const refresh = () => {
    clearTimeout(timer);
    timer = setTimeout(fetchPage, Math.max(0, last + PAUSE - Date.now()));
  };

  // ---- Contact with the node.
  const heard = () => {
    contact = now();
    if (gone) {
      gone = false;
      document.getElementById("offline").hidden = true;
      announce("The node answers again");
    }
  };
  // A tick comes every five seconds.
  const SILENCE = 12000;
  const lost = () => {
    gone = true;
    const bar = document.getElementById("offline");
    bar.textContent = "The node does not answer since " + clock.format(new Date(contact)) + ". This page may be out of date.";
    bar.hidden = false;
  };
  let source = null;
  let retry = 0;
  let software = null;
  const listen = () => {
    clearTimeout(retry);
    if (source) source.close();
    source = new EventSource("/events");
    source.addEventListener("hello", (event) => {
      const said = JSON.parse(event.data);
      if (software && software !== said.software) location.reload();
      software = said.software;
      heard();
      // What came while nobody listened.
      refresh();
    });
    source.addEventListener("change", () => { heard(); refresh(); });
    source.addEventListener("tick", heard);
    source.onerror = () => {
      if (source.readyState !== EventSource.OPEN) lost();
      // A browser gives up after an answer that is no stream; then it is asked again here.
      if (source.readyState === EventSource.CLOSED) { fetchPage(); retry = setTimeout(listen, 2000); }
    };
  };
  const quiet = () => {
    clearTimeout(retry);
    if (source) source.close();
    source = null;
  };
  // A browser has six connections to a node: pages that nobody sees give theirs back, unless they are to sound.
  let keepListening = () => false;
  // Pages that have nothing new to show, such as the login, listen to nothing.
  const isLive = () => document.querySelector("#list, [data-part]") !== null;
  document.addEventListener("visibilitychange", () => {
    if (!isLive()) return;
    if (!document.hidden && !source) listen();
    else if (document.hidden && !keepListening()) quiet();
  });

  const tick = () => {
    if (source && now() - contact > SILENCE) lost();
    const place = document.getElementById("contact");
    place.textContent = gone ? "no contact" : "updated " + age((now() - contact) / 1000) + " ago";
    document.querySelectorAll("time.age").forEach(tellTime);
  };

  document.addEventListener("DOMContentLoaded", () => {
    showTheme();
    document.getElementById("theme").addEventListener("click", () => {
      theme = themes[(themes.indexOf(theme) + 1) % themes.length];
      memory.set("theme", theme);
      showTheme();
    });
    document.addEventListener("click", (event) => {
      const button = event.target.closest("button.copy");
      if (button) copy(button);
    });
    // A form is sent without leaving the page.
    document.addEventListener("submit", async (event) => {
      const form = event.target;
      // Login and acknowledge links lead elsewhere.
      if (form.method !== "post" || !form.elements.back) return;
      event.preventDefault();
      form.querySelectorAll("[data-remember]").forEach((field) => {
        if (field.type !== "hidden") memory.set(field.dataset.remember, field.value);
      });
      const data = new FormData(form, event.submitter);
      if (!data.get("by")) data.set("by", memory.get("by") ?? "");
      const buttons = form.querySelectorAll("button");
      buttons.forEach((button) => { button.disabled = true; });
      try {
        const answer = await fetch(form.action, { method: "POST", body: new URLSearchParams(data), redirect: "manual" });
        if (answer.type !== "opaqueredirect" && !answer.ok) throw new Error(String(answer.status));
        form.reset();
        announce("Done");
        fetchPage();
      } catch {
        announce("This could not be done. Try again when the node answers.");
        const bar = document.getElementById("offline");
        bar.textContent = "This could not be done. Try again in a moment.";
        bar.hidden = false;
        gone = true;
      }
      buttons.forEach((button) => { button.disabled = false; });
    });
    if (!isLive()) { triaged.prepare(document.body); return; }
    listen();
    setInterval(tick, 1000);
    tick();
  });

  return {
    memory, tellTimes, prepare, remember, replace, announce, refresh, age,
    onPage(take) { apply = take; },
    listenWhileHidden(whether) { keepListening = whether; },
  };
})();
