"use strict";
// Fetches the page's parts again and puts in those that have changed. What has the
// focus keeps it, and what somebody has opened stays open.

const SECONDS = 2;
const FETCH_SECONDS = 10;

function putIn(old, fresh) {
  if (old.innerHTML === fresh.innerHTML) return;
  const open = [...old.querySelectorAll("details[open][id]")].map((each) => each.id);
  for (const id of open) {
    const again = fresh.querySelector(`[id="${CSS.escape(id)}"]`);
    if (again) again.open = true;
  }
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  const href = focused && focused.getAttribute("href");
  const within = focused && focused.closest("details[id], form[action]");
  old.replaceChildren(...fresh.childNodes);
  if (!focused) return;
  const again = href
    ? old.querySelector(`a[href="${CSS.escape(href)}"]`)
    : within && within.id
      ? old.querySelector(`[id="${CSS.escape(within.id)}"] summary`)
      : within && old.querySelector(`form[action="${CSS.escape(within.getAttribute("action"))}"] button`);
  if (again) again.focus({ preventScroll: true });
}

function tellStale(reason) {
  const stale = document.getElementById("stale");
  const told = `${reason} What is shown is old.`;
  // It is read aloud when it changes.
  if (stale.textContent !== told) stale.textContent = told;
  stale.hidden = false;
}

async function refetch() {
  try {
    const asked = { signal: AbortSignal.timeout(FETCH_SECONDS * 1000) };
    const answer = await fetch(location.pathname + "?part", asked);
    if (answer.status === 401) return location.reload();
    const text = await answer.text();
    const fresh = new DOMParser().parseFromString(text, "text/html");
    const parts = [...fresh.querySelectorAll("[data-part]")];
    const ids = parts.map((part) => part.id).join();
    const shown = [...document.querySelectorAll("main [data-part]")];
    const failure = fresh.querySelector("#failure [role=alert]");
    if (answer.status >= 500 && failure && shown.every((part) => part.id !== "failure")) {
      return tellStale(`${failure.textContent}.`);
    }
    if (shown.map((part) => part.id).join() === ids) {
      shown.forEach((part, place) => putIn(part, parts[place]));
    } else {
      document.getElementById("main").replaceChildren(...fresh.body.childNodes);
    }
    document.getElementById("stale").hidden = true;
  } catch {
    tellStale("No answer from the page.");
  }
}

async function follow() {
  for (;;) {
    await new Promise((done) => setTimeout(done, SECONDS * 1000));
    if (!document.hidden) await refetch();
  }
}

follow();
