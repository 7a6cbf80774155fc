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
    remove(key) { try { localStorage.removeItem("triaged." + key); } catch { /* there is none */ } },
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

  // ---- Who acts, where nobody logs in: the name that was typed last, for a shift's part. Whoever comes next is asked anew.
  const REMEMBERED = 4 * 3600000;
  memory.remove("by");
  const who = {
    get() {
      try {
        const kept = JSON.parse(memory.get("who"));
        return Date.now() - kept.at < REMEMBERED ? kept.name : "";
      } catch { return ""; }
    },
    set(name) {
      if (name.trim()) memory.set("who", JSON.stringify({ name: name.trim(), at: Date.now() }));
      else memory.remove("who");
    },
  };
  const tellWho = (within) => {
    const name = who.get();
    within.querySelectorAll("[data-remember=by]").forEach((field) => {
      if (field !== document.activeElement) field.value = name || (field.type === "hidden" ? "" : field.value);
    });
    within.querySelectorAll("[data-as]").forEach((place) => { place.textContent = name ? "as " + name : ""; });
    within.querySelectorAll("details.me").forEach((part) => {
      part.querySelector("strong").textContent = name;
      part.querySelector("summary").hidden = !name;
      if (!part.contains(document.activeElement)) part.open = !name;
    });
  };

  // ---- Parts of a page that are replaced where the node has something new. What the node sent is kept beside each, because
  // times and names are written into it here.
  const sent = new WeakMap();
  const remember = (element) => sent.set(element, element.innerHTML);
  const focusPath = (within) => {
    const focused = document.activeElement;
    if (!focused || !within.contains(focused)) return null;
    const same = (element) => element.tagName === focused.tagName && element.getAttribute("href") === focused.getAttribute("href")
      && element.getAttribute("name") === focused.getAttribute("name") && element.getAttribute("value") === focused.getAttribute("value")
      && element.dataset.copy === focused.dataset.copy;
    return (into) => Array.from(into.querySelectorAll(focused.tagName)).find(same);
  };
  const fieldsOf = (element) => Array.from(element.querySelectorAll("input:not([type=hidden], [type=range]), textarea"));
  const isWritten = (field) => !field.dataset.remember && field.value !== field.defaultValue;
  const sameField = (into, field) => fieldsOf(into).find((other) => other.name === field.name
    && other.form?.getAttribute("action") === field.form?.getAttribute("action"));
  // What was typed into a field that is gone for a while.
  const stash = new Map();
  // A letter that an input method is still making would be lost.
  let composing = false;
  document.addEventListener("compositionstart", () => { composing = true; });
  document.addEventListener("compositionend", () => { composing = false; if (source) refresh(); });
  // When a form began to name another verdict, or to offer another deed, by somebody else's doing: a click that was meant for the
  // one before comes a moment later.
  const changed = new WeakMap();
  const JUST_NOW = 800;
  let lastDeed = 0;
  const OWN = 3000;
  const verdictsOf = (element) => new Map(Array.from(element.querySelectorAll("form"), (form) => [form.getAttribute("action"), form.elements.verdict?.value + form.elements.kind?.value]));
  // Takes over the children of `fresh`. What a person is writing stays, in the new field.
  const replace = (element, fresh) => {
    if (sent.get(element) === fresh.innerHTML) return false;
    if (composing && element.contains(document.activeElement)) return false;
    const written = fieldsOf(element).filter((field) => isWritten(field) || field === document.activeElement);
    // While slices come there may be nothing to acknowledge for a moment: nobody is interrupted for that.
    const waits = fresh.querySelector("form") === null;
    if (waits && written.some((field) => isWritten(field) && field === document.activeElement)) return false;
    const caret = written.map((field) => (field === document.activeElement ? [field.selectionStart, field.selectionEnd] : null));
    const find = focusPath(element);
    const before = verdictsOf(element);
    const html = fresh.innerHTML;
    element.replaceChildren(...Array.from(fresh.childNodes, (node) => document.importNode(node, true)));
    sent.set(element, html);
    prepare(element);
    written.forEach((field, n) => {
      const place = sameField(element, field);
      if (!place) {
        if (!isWritten(field)) return;
        stash.set(field.form?.getAttribute("action") + " " + field.name, field.value);
        if (!waits) tell("Somebody else was faster, and there is no place for what you have typed: “" + field.value + "”");
        return;
      }
      place.value = field.value;
      if (!caret[n]) return;
      place.focus({ preventScroll: true });
      if (caret[n][0] !== null) place.setSelectionRange(...caret[n]);
    });
    for (const field of fieldsOf(element)) {
      const name = field.form?.getAttribute("action") + " " + field.name;
      if (stash.has(name) && !isWritten(field)) field.value = stash.get(name);
      stash.delete(name);
    }
    for (const form of element.querySelectorAll("form")) {
      const was = before.get(form.getAttribute("action"));
      const is = form.elements.verdict?.value + form.elements.kind?.value;
      if (before.size > 0 && was !== is && Date.now() - lastDeed > OWN) changed.set(form, Date.now());
    }
    if (find && !element.contains(document.activeElement)) {
      // What had the focus may be gone: then the study's name has it, or the part itself.
      let to = find(element) ?? element.closest("tr")?.querySelector("a.main");
      if (!to) { element.tabIndex = -1; to = element; }
      to.focus({ preventScroll: true });
    }
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
    tellWho(within);
  };

  const announce = (text) => {
    const place = document.getElementById("announcements");
    place.textContent = "";
    setTimeout(() => { place.textContent = text; }, 50);
  };
  const inWords = (bar, words, link) => {
    bar.replaceChildren(words + " ");
    if (!link) return;
    const to = document.createElement("a");
    to.href = link;
    to.textContent = "Log in again";
    // What is typed stays in this page.
    if (fieldsOf(document).some(isWritten)) to.target = "_blank";
    bar.append(to);
  };
  // What came of a deed stays until it was read.
  const tell = (words, link) => {
    const bar = document.getElementById("deed");
    inWords(bar.querySelector("span"), words, link);
    bar.hidden = false;
  };

  // ---- The page anew. `apply` takes over what is new of the document.
  let apply = () => {};
  // Of a clock that nobody sets: the last word of the node, and the last page that was taken over.
  const tickNow = () => performance.now();
  let contact = tickNow();
  let applied = tickNow();
  // Since when there may be something that the page does not show; 0: it shows all.
  let behind = 0;
  // Why it cannot be fetched: words, and where to log in.
  let problem = null;
  let tries = 0;
  let fetching = false;
  let again = false;
  let last = 0;
  let timer = 0;
  // At least so long between two fetches, in milliseconds, and at most.
  const PAUSE = 600;
  const CHECK = 60000;
  const LONGEST_RETRY = 30000;
  // The node does not take these requests for its user's doing.
  const BACKGROUND = "triaged-background";
  const here = () => location.href.split("#")[0];
  const login = () => "/login?next=" + encodeURIComponent(location.pathname + location.search);
  const ELSEWHERE = "Something before the node, such as a log-in, answers in its place.";
  const failed = (why) => {
    problem = why;
    tries += 1;
    if (!behind) behind = tickNow();
    clearTimeout(timer);
    timer = setTimeout(fetchPage, Math.min(LONGEST_RETRY, 1000 * 2 ** tries));
    show();
  };
  // A page of another site cannot be read, nor that it leads there: that much is asked.
  const whyNot = async () => {
    try {
      const answer = await fetch(here(), { redirect: "manual", cache: "no-store", headers: { [BACKGROUND]: "1" }, signal: AbortSignal.timeout(5000) });
      answer.body?.cancel();
      if (answer.type === "opaqueredirect") return { words: ELSEWHERE, login: here(), out: true };
    } catch { /* so nobody answers */ }
    return { words: "The node does not answer." };
  };
  const take = (request) => {
    const came = request.response;
    if (new URL(request.responseURL || location.href).pathname === "/login" || request.status === 401) {
      return { words: "You are logged out.", login: login(), out: true };
    }
    if (request.status === 403) return { words: "You may not see this page any more.", login: login(), out: true };
    if (request.status !== 200) return { words: "The node answers " + request.status + " instead of the page." };
    if (!came?.querySelector("meta[name=generator][content^=triaged]")) return { words: ELSEWHERE, login: here(), out: true };
    const date = Date.parse(request.getResponseHeader("date"));
    // To the second; a smaller difference is the way.
    if (!isNaN(date)) skew = Math.abs(date - Date.now()) > 5000 ? date - Date.now() : 0;
    apply(came);
    return null;
  };
  const fetchPage = () => {
    if (fetching) { again = true; return; }
    fetching = true;
    clearTimeout(timer);
    last = Date.now();
    const request = new XMLHttpRequest();
    const done = (why) => {
      fetching = false;
      if (why) { again = false; failed(why); return; }
      applied = tickNow();
      tries = 0;
      problem = null;
      behind = 0;
      heard();
      if (again) { again = false; refresh(); }
    };
    request.open("GET", here());
    request.setRequestHeader(BACKGROUND, "1");
    request.responseType = "document";
    request.timeout = 10000;
    request.onload = () => done(take(request));
    request.ontimeout = () => done({ words: "The node did not send the page within ten seconds." });
    request.onerror = async () => done(await whyNot());
    request.onabort = () => done({ words: "The page could not be fetched." });
    request.send();
  };
  const refresh = () => {
    if (!behind) behind = tickNow();
    if (fetching) { again = true; return; }
    // One that failed is tried again in its own time.
    if (tries > 0) return;
    clearTimeout(timer);
    timer = setTimeout(fetchPage, Math.max(0, last + PAUSE - Date.now()));
  };

  // ---- Contact with the node, and what the page says of itself.
  // A tick comes every five seconds.
  const SILENCE = 12000;
  let gone = false;
  const heard = () => {
    contact = tickNow();
    gone = false;
    show();
  };
  const lost = () => {
    gone = true;
    show();
  };
  let shown = "";
  const since = (tick) => clock.format(new Date(now() - (tickNow() - tick)));
  const show = () => {
    const bar = document.getElementById("offline");
    if (!bar) return;
    const isStale = behind && tickNow() - behind > SILENCE;
    let words = "";
    let link = "";
    if (problem?.out) [words, link] = [problem.words + " This page shows nothing new since " + since(applied) + ".", problem.login];
    else if (gone) words = "The node does not answer since " + since(contact) + ". This page may be out of date.";
    else if (isStale) words = "This page is out of date since " + since(behind) + ". " + (problem?.words ?? "The node has not sent it.");
    // Patients' data do not stay on the screen of somebody who is logged out; what was typed stays in the page.
    document.getElementById("main").hidden = Boolean(problem?.out);
    document.getElementById("contact").textContent = words ? (gone && !problem?.out ? "no contact" : "out of date") : "updated " + age((tickNow() - applied) / 1000) + " ago";
    if (words !== shown) {
      if (words) inWords(bar, words, link);
      else announce("The node answers again");
      bar.hidden = !words;
      shown = words;
    }
    // A node that starts anew is no alarm.
    if (problem?.out || (gone && tickNow() - contact > SILENCE) || isStale) triaged.alarm.fail(words, problem?.out ? "logged out" : gone ? "no contact" : "out of date");
    else if (!words) triaged.alarm.recover();
  };
  let source = null;
  let retry = 0;
  let software = null;
  // How many flagged, unread studies the page had when it came; none where it does not say.
  let atFirst = Infinity;
  let warning = 0;
  const warn = (ends) => {
    clearTimeout(warning);
    const left = Date.parse(ends) - now();
    if (isNaN(left) || left <= 0) return;
    const say = () => {
      const words = "You will be logged out at " + clock.format(new Date(ends)) + ".";
      tell(words, login());
      triaged.alarm.warn(words);
    };
    warning = setTimeout(say, Math.max(0, left - 600000));
  };
  const listen = () => {
    clearTimeout(retry);
    if (source) source.close();
    source = new EventSource("/events");
    source.addEventListener("hello", (event) => {
      const said = JSON.parse(event.data);
      if (software && software !== said.software && !fieldsOf(document).some(isWritten)) location.reload();
      software = said.software;
      if (said.session_ends) warn(said.session_ends);
      heard();
      // What came while nobody listened; a page that could not be fetched before may be now.
      tries = 0;
      refresh();
    });
    source.addEventListener("change", () => { heard(); refresh(); });
    source.addEventListener("flags", (event) => { heard(); triaged.alarm.flags(JSON.parse(event.data), atFirst); });
    source.addEventListener("tick", heard);
    source.onerror = () => {
      if (source.readyState !== EventSource.OPEN) lost();
      // A browser gives up after an answer that is no stream; then it is asked again here.
      if (source.readyState === EventSource.CLOSED) { if (tries === 0) fetchPage(); retry = setTimeout(listen, problem ? 10000 : 2000); }
    };
  };
  const quiet = () => {
    clearTimeout(retry);
    if (source) source.close();
    source = null;
  };
  // A browser has six connections to a node: pages that nobody sees give theirs back, unless they are to sound; of those two keep theirs.
  const MOST_HIDDEN = 2;
  const me = Math.random().toString(36).slice(2);
  const listeners = () => {
    let all = {};
    try { all = JSON.parse(memory.get("listeners")) ?? {}; } catch { /* none */ }
    return Object.fromEntries(Object.entries(all).filter(([name, at]) => name !== me && Date.now() - at < 150000));
  };
  const keepListening = () => triaged.alarm.isOn() && Object.keys(listeners()).length < MOST_HIDDEN;
  const noteListening = () => {
    if (document.hidden && source) memory.set("listeners", JSON.stringify({ ...listeners(), [me]: Date.now() }));
  };
  const forgetListening = () => memory.set("listeners", JSON.stringify(listeners()));
  // Pages that have nothing new to show, such as the login, listen to nothing.
  const isLive = () => document.querySelector("#list, [data-part]") !== null;
  document.addEventListener("visibilitychange", () => {
    if (!isLive()) return;
    if (!document.hidden) {
      forgetListening();
      if (!source) { contact = tickNow(); listen(); }
    } else if (keepListening()) noteListening();
    else quiet();
  });
  addEventListener("pagehide", () => { if (document.hidden) forgetListening(); });

  let ticks = 0;
  const tick = () => {
    ticks += 1;
    if (document.hidden && ticks % 30 === 0) noteListening();
    if (source && tickNow() - contact > SILENCE) gone = true;
    if (source && tries === 0 && !fetching && tickNow() - applied > CHECK) refresh();
    show();
    document.querySelectorAll("time.age").forEach(tellTime);
  };

  // ---- A form is sent without leaving the page. It was done where the node says so, in its own words, and not before.
  const sending = new WeakSet();
  const ANSWER = 20000;
  const send = async (form, submitter) => {
    if (sending.has(form)) return;
    if (Date.now() - (changed.get(form) ?? 0) < JUST_NOW) {
      tell("Nothing was done: the verdict changed just as you clicked. Look at it, then click again.");
      return;
    }
    const data = new FormData(form, submitter);
    if (data.has("by") && data.get("by")) who.set(data.get("by"));
    else if (who.get()) data.set("by", who.get());
    sending.add(form);
    const buttons = form.querySelectorAll("button");
    // Not `disabled`, which takes the focus away.
    buttons.forEach((button) => button.setAttribute("aria-disabled", "true"));
    try {
      const signal = AbortSignal.timeout(ANSWER);
      const answer = await fetch(form.action, { method: "POST", headers: { Accept: "application/json" }, body: new URLSearchParams(data), redirect: "manual", signal });
      const isJson = (answer.headers.get("content-type") ?? "").startsWith("application/json");
      const said = isJson ? await answer.json() : null;
      if (answer.ok && said?.done === true) {
        lastDeed = Date.now();
        form.reset();
        tellWho(document);
        document.getElementById("deed").hidden = true;
        announce("Done");
      } else if (answer.status === 401) tell("Nothing was done: you are logged out. What you typed is kept.", login());
      else if (answer.type === "opaqueredirect" || answer.ok) tell("Nothing was done. " + ELSEWHERE + " What you typed is kept.", here());
      else if (answer.status === 409) tell("Nothing was done: " + said?.error + ". Look at it, then do it again. What you typed is kept.");
      else tell("Nothing was done: " + (said?.error ?? (answer.status === 403 ? "you may not do this" : "the node answers " + answer.status)) + ".");
    } catch (error) {
      if (error.name === "TimeoutError") tell("The node has not answered within 20 seconds. Look whether it was done before you try again.");
      else tell("The node does not answer. Look whether it was done before you try again.");
    }
    sending.delete(form);
    buttons.forEach((button) => button.removeAttribute("aria-disabled"));
    fetchPage();
  };

  document.addEventListener("DOMContentLoaded", () => {
    showTheme();
    document.getElementById("theme").addEventListener("click", () => {
      theme = themes[(themes.indexOf(theme) + 1) % themes.length];
      memory.set("theme", theme);
      showTheme();
    });
    document.querySelector("#deed button").addEventListener("click", () => { document.getElementById("deed").hidden = true; });
    document.addEventListener("click", (event) => {
      const button = event.target.closest("button.copy");
      if (button) copy(button);
    });
    document.addEventListener("change", (event) => {
      if (!event.target.matches("input[data-remember=by]")) return;
      who.set(event.target.value);
      tellWho(document);
    });
    document.addEventListener("submit", (event) => {
      const form = event.target;
      // Login and acknowledge links lead elsewhere.
      if (form.method !== "post" || !form.elements.back) return;
      event.preventDefault();
      send(form, event.submitter);
    });
    if (!isLive()) { triaged.prepare(document.body); return; }
    atFirst = Number(document.getElementById("counts")?.dataset.flagged ?? Infinity);
    listen();
    setInterval(tick, 1000);
    tick();
  });

  return {
    memory, tellTimes, prepare, remember, replace, announce, refresh, age,
    onPage(take) { apply = take; },
  };
})();
