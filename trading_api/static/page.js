// Keeps the page fresh by replacing what changed, and asks before it sends a control call.
"use strict";

(() => {
  const REFRESH_MS = 5000;
  const CHARTS_MS = 20000;
  const FOCUSABLE = "a[href], button, summary, input, [tabindex]";
  const main = document.getElementById("main");
  const state = { days: 7, symbol: (main.dataset.symbols || "").split(",")[0] };

  // ------------------------------------------------------------------------------------------------------- refreshing
  async function refresh() {
    if (document.hidden) return;
    let answer;
    try {
      answer = await fetch(`/panels${window.location.search}`, { headers: { Accept: "text/html" } });
    } catch {
      return stale("The status app does not answer");
    }
    if (answer.redirected || answer.status === 401) { window.location.reload(); return; }
    if (!answer.ok) return stale(`The status app answered ${answer.status}`);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (Boolean(fresh.getElementById("equity-card")) !== Boolean(document.getElementById("equity-card"))) { window.location.reload(); return; }
    for (const panel of fresh.querySelectorAll("[data-panel]")) replace(panel);
    document.body.classList.remove("stale");
    document.getElementById("refreshed").textContent = `Updated ${new Date().toISOString().slice(11, 19)} UTC`;
  }

  function replace(panel) {
    const old = main.querySelector(`[data-panel="${panel.dataset.panel}"]`);
    if (!old) return;
    for (const details of old.querySelectorAll("details[data-key]")) {
      const twin = panel.querySelector(`details[data-key="${CSS.escape(details.dataset.key)}"]`);
      if (twin) twin.open = details.open;
    }
    if (old.innerHTML === panel.innerHTML || isBeingCopied(old)) return;
    // Whoever goes by keyboard, or has scrolled a table, finds things where they were.
    const focused = [...old.querySelectorAll(FOCUSABLE)].indexOf(document.activeElement);
    const scrolled = [...old.querySelectorAll(".scroll")].map((table) => table.scrollLeft);
    old.replaceWith(panel);
    panel.querySelectorAll(FOCUSABLE)[focused]?.focus({ preventScroll: true });
    panel.querySelectorAll(".scroll").forEach((table, index) => { table.scrollLeft = scrolled[index] || 0; });
  }

  function isBeingCopied(panel) {
    const chosen = window.getSelection();
    return Boolean(chosen && !chosen.isCollapsed && panel.contains(chosen.anchorNode));
  }

  function stale(words) {
    document.body.classList.add("stale");
    document.getElementById("refreshed").textContent = `${words}; what you see is old`;
  }

  // ----------------------------------------------------------------------------------------------------------- charts
  async function draw() {
    const equity = document.getElementById("equity-chart");
    const candles = document.getElementById("candle-chart");
    if (document.hidden || !window.Plotly || !equity) return;
    try {
      await Charts.equity(equity, state.days, await marketNow());
      await Charts.candles(candles, state.symbol);
    } catch (error) {
      stale(error.message);
    }
  }

  async function marketNow() {
    const answer = await fetch("/api/system-status");
    const clock = answer.ok ? (await answer.json()).clock : {};
    return Date.parse(clock.market || clock.wall || new Date().toISOString());
  }

  document.addEventListener("click", (event) => {
    const tab = event.target.closest(".tabs button");
    if (tab) {
      for (const other of tab.parentElement.children) other.setAttribute("aria-pressed", String(other === tab));
      if (tab.dataset.days) state.days = Number(tab.dataset.days);
      if (tab.dataset.symbol) state.symbol = tab.dataset.symbol;
      draw();
    }
    const button = event.target.closest("[data-action]");
    if (button && !button.disabled) ask(button.dataset.action);
  });

  // ---------------------------------------------------------------------------------------------------------- control
  const ACTIONS = {
    halt: { title: "Halt trading", words: "No new entry is sent. Open positions keep their stops and are managed on.", sure: "Stop new entries", go: "Halt" },
    resume: { title: "Resume trading", words: "Opens the latch. After a breaker it is refused unless everything is flat and reconciled.", sure: "I have looked at why it stopped", go: "Resume" },
    flatten: { title: "Flatten everything", words: "Latches the breaker, then closes every position at the market, one by one, until nothing is left. Trading stays stopped until you resume.", sure: "Sell everything that Tradewind holds", go: "Flatten" },
  };
  const dialog = document.getElementById("control");
  const part = (name) => document.getElementById(`control-${name}`);
  let current = "";
  let key = "";

  // The same press starts one run, however often it is sent; the next press is another.
  function newKey() {
    key = [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  function ask(action) {
    const about = ACTIONS[action];
    current = action;
    newKey();
    part("title").textContent = about.title;
    part("words").textContent = about.words;
    part("sure-words").textContent = about.sure;
    part("go").textContent = about.go;
    part("reason-row").hidden = action !== "halt";
    part("reason").value = "";
    part("token").value = "";
    part("sure").checked = false;
    say("", "");
    dialog.showModal();
    (action === "halt" ? part("reason") : part("sure")).focus();
  }

  function say(words, tone) {
    part("answer").textContent = words;
    part("answer").className = `note ${tone}`;
    part("answer").hidden = !words;
  }

  // Wait for the run that was started; a refusal stays on the screen. The breaker may take its time: the page shows it.
  async function follow(href) {
    for (let turn = 0; turn < 60; turn += 1) {
      if (!dialog.open) return false;
      const answer = await fetch(href);
      const job = answer.ok ? await answer.json() : {};
      if (job.state === "done") return true;
      if (job.state === "failed") { say(job.error || "The run failed: see it in Airflow.", "bad"); refresh(); return false; }
      say(`${job.kind ? job.kind.replaceAll("_", " ") : "The run"} is ${job.state || "starting"}…`, "");
      await refresh();
      await new Promise((resolve) => { setTimeout(resolve, 1000); });
    }
    say("It is still at work: see Jobs.", "warn");
    return false;
  }

  part("cancel").addEventListener("click", () => dialog.close());
  dialog.querySelector("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!part("sure").checked) return say("Tick the box to confirm.", "warn");
    if (current === "halt" && !part("reason").value.trim()) return say("Give a reason.", "warn");
    if (!part("token").value) return say("Enter the control token.", "warn");
    part("go").disabled = true;
    try {
      const answer = await fetch(`/api/${current}`, {
        method: "POST",
        headers: {
          "Content-Type": "application/json",
          "X-Tradewind-Control": part("token").value,
          "Idempotency-Key": key,
          "X-CSRF-Token": document.querySelector('meta[name="csrf"]').content,
        },
        body: JSON.stringify(current === "halt" ? { reason: part("reason").value.trim() } : {}),
      });
      const body = await answer.json();
      if (!answer.ok) return say(body.detail || `Refused (${answer.status})`, "bad");
      newKey();
      part("token").value = "";
      if (body.detail) say(body.detail, "warn");
      if (body.href && !await follow(body.href)) return undefined;
      if (!body.href && answer.status === 202) return refresh();
      dialog.close();
      await refresh();
    } catch {
      say("The status app does not answer. ./tradewind halt works without it.", "bad");
    } finally {
      part("go").disabled = false;
    }
    return undefined;
  });

  draw();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  setInterval(refresh, REFRESH_MS);
  setInterval(draw, CHARTS_MS);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) { refresh(); draw(); } });
})();
