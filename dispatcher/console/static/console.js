// Shows times in the reader's time zone, updates the dashboard every second, and warns on every page
// when its data are old.
"use strict";

document.documentElement.classList.add("js");

// The page's language, with the habits of the reader's country if the browser names one for it.
const tag = document.documentElement.lang;
const locale = navigator.languages.find((each) => each.split("-")[0] === tag.split("-")[0]) ?? tag;
const clock = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "medium" });

function localise(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (!Number.isNaN(at.getTime())) {
      time.title = time.textContent;
      time.textContent = clock.format(at);
    }
  }
}

// Fields of times are in the reader's zone, and are sent in UTC, as addresses have them.
function localiseFields() {
  const minute = (at) => at.toISOString().slice(0, 16);
  const offset = (at) => at.getTimezoneOffset() * 60000;
  for (const field of document.querySelectorAll("input[type=datetime-local]")) {
    const zone = document.querySelector(`label[for="${field.id}"] .zone`);
    const given = field.getAttribute("value"); // not what the browser has kept of an earlier visit
    const at = new Date(`${given}Z`);
    field.value = given ? minute(new Date(at - offset(at))) : "";
    zone.textContent = Intl.DateTimeFormat().resolvedOptions().timeZone;
    field.form.addEventListener("formdata", ({ formData }) => {
      if (field.value) formData.set(field.name, minute(new Date(field.value)));
    });
  }
  for (const field of document.querySelectorAll("input[data-zone]")) {
    field.value ||= Intl.DateTimeFormat().resolvedOptions().timeZone;
  }
}

// Changes only what differs, so that focus and selection stay.
function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
    old.replaceWith(fresh.cloneNode(true));
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  const before = [...old.childNodes];
  const after = [...fresh.childNodes];
  after.forEach((child, place) => {
    if (before[place]) morph(before[place], child);
    else old.append(child.cloneNode(true));
  });
  for (const gone of before.slice(after.length)) gone.remove();
}

const CONNECT_AGAIN_MILLISECONDS = 3000;

function live(place) {
  const liveStatus = document.getElementById("live-status");
  const headline = () => place.querySelector("h1")?.textContent ?? "";
  let announced = headline();
  const connect = () => {
    const source = new EventSource(place.dataset.live);
    source.onmessage = (event) => {
      const fresh = new DOMParser().parseFromString(event.data, "text/html").body;
      localise(fresh);
      const shell = place.cloneNode(false);
      shell.append(...fresh.childNodes);
      morph(place, shell);
      liveStatus.classList.remove("lost");
      // Screen readers read a change of the headline, and not the numbers of every second.
      const now = headline();
      liveStatus.textContent = now === announced ? liveStatus.dataset.live : now;
      announced = now;
    };
    source.onerror = () => {
      const closed = source.readyState === EventSource.CLOSED;
      liveStatus.classList.add("lost");
      liveStatus.textContent = closed ? liveStatus.dataset.closed : liveStatus.dataset.lost;
      // A browser gives up after any answer but 200: that of a proxy while the service restarts.
      if (closed) setTimeout(connect, CONNECT_AGAIN_MILLISECONDS);
    };
  };
  connect();
}

// Loads the page again and again, and changes the part that is counted anew.
function renew(part) {
  const again = async () => {
    if (part.dataset.renew === undefined) return;
    if (!document.hidden) {
      try {
        const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
        if (answer.ok) {
          const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
          localise(fresh);
          const found = fresh.getElementById(part.id);
          if (found) morph(part, document.importNode(found, true));
        }
      } catch {
        // watch() says that the service does not answer
      }
    }
    setTimeout(again, (part.dataset.renew ?? 5) * 1000);
  };
  setTimeout(again, part.dataset.renew * 1000);
}

// A page that nothing renews stays as it was; it must not look like the present when the service or
// its database does not answer.
const FRESH_SECONDS = 5;
const ASK_SECONDS = 1.5;
const HIDDEN_ASKS = 10;

const pageTitle = document.title;

// Shows in the tab's title and icon, and in the navigation, how many problems there are.
function trouble(problems) {
  const badge = document.getElementById("trouble");
  const icon = document.getElementById("icon");
  const text = problems > 0 ? String(problems) : "";
  if (badge.textContent !== text) {
    badge.textContent = text;
    badge.title = problems > 0 ? `${problems} ${badge.dataset.title}` : "";
    document.title = problems > 0 ? `(${problems}) ${pageTitle}` : pageTitle;
    icon.dataset.usual ??= icon.href;
    icon.href = problems > 0 ? icon.dataset.trouble : icon.dataset.usual;
  }
}

function watch(banner) {
  const time = new Intl.DateTimeFormat(locale, { timeStyle: "medium" });
  const page = time.format(new Date(document.getElementById("as-of").dateTime));
  let freshAt = Date.now();
  let loggedOut = false;
  let asked = 0;
  const show = () => {
    const stale = loggedOut || Date.now() - freshAt > FRESH_SECONDS * 1000;
    if (banner.hidden !== stale) return;
    banner.hidden = !stale;
    banner.textContent = !stale ? ""
      : (loggedOut ? banner.dataset.ended : banner.dataset.old)
        .replace("{time}", page).replace("{since}", time.format(freshAt));
  };
  const ask = async () => {
    asked += 1;
    // A page in the background asks now and then, for its title and icon.
    if (document.hidden) { freshAt = Date.now(); if (asked % HIDDEN_ASKS !== 0) return; }
    try {
      const answer = await fetch(banner.dataset.fresh, { signal: AbortSignal.timeout(ASK_SECONDS * 1000) });
      const isJson = answer.headers.get("Content-Type")?.startsWith("application/json");
      // A proxy that signs operators in may answer with its own page instead.
      loggedOut = answer.status === 401 || (answer.status < 500 && !isJson);
      if (answer.ok && isJson) {
        const { trouble: problems } = await answer.json();
        freshAt = Date.now();
        trouble(problems);
      }
    } catch {
      // neither this answer: show() counts the seconds
    }
  };
  const loop = async () => { await ask(); show(); setTimeout(loop, 1000); };
  setInterval(show, 500);
  loop();
}

// A double click sends a form once.
const SENT_AGAIN_MILLISECONDS = 2000;
document.addEventListener("submit", (event) => {
  const now = Date.now();
  if (now - (event.target.dataset.sentAt ?? 0) < SENT_AGAIN_MILLISECONDS) event.preventDefault();
  else event.target.dataset.sentAt = now;
});

localise(document);
localiseFields();
const banner = document.getElementById("stale");
if (banner) watch(banner);
const place = document.querySelector("[data-live]");
if (place) live(place);
for (const part of document.querySelectorAll("[data-renew]")) renew(part);
