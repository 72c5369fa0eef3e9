// Shows times in the reader's time zone, and updates the dashboard every second.
"use strict";

const clock = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

function localise(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (!Number.isNaN(at.getTime())) {
      time.title = time.textContent;
      time.textContent = clock.format(at);
    }
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

function live(place) {
  const liveStatus = document.getElementById("live-status");
  const headline = () => place.querySelector("h1")?.textContent ?? "";
  let announced = headline();
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
    liveStatus.textContent = now === announced ? "Live." : now;
    announced = now;
  };
  source.onerror = () => {
    liveStatus.classList.add("lost");
    liveStatus.textContent = source.readyState === EventSource.CLOSED
      ? "Not live any more: load the page again."
      : "The service does not answer. These numbers are old; trying again …";
  };
}

localise(document);
const place = document.querySelector("[data-live]");
if (place) live(place);
