// The Offload page: Airflow's theme, a filter, a refresh that keeps the place, what a window or a chart says.
"use strict";
(() => {
  const EVERY_MS = 15000;
  const PATIENCE_MS = 10000;
  const root = document.documentElement;
  const page = document.getElementById("page");

  // Airflow keeps its choice in local storage, and this page has the same origin; "system" leaves it to the browser
  const theme = () => {
    const chosen = localStorage.getItem("theme");
    if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;
    else delete root.dataset.theme;
  };
  theme();
  addEventListener("storage", theme);

  // a sandboxed frame may not move Airflow itself: Airflow's own document follows the link
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-airflow]");
    if (!link || parent === window) return;
    event.preventDefault();
    const twin = parent.document.createElement("a");
    twin.href = link.href;
    if (event.ctrlKey || event.metaKey) twin.target = "_blank";
    twin.click();
  });

  // filter ------------------------------------------------------------------------------------------------------
  const filter = () => {
    const form = page.querySelector("[data-filter]");
    if (!form) return;
    const words = form.q.value.toLowerCase().split(/\s+/).filter(Boolean);
    const danger = form.danger.value;
    let hits = 0;
    for (const row of page.querySelectorAll("tr[data-danger]")) {
      const text = row.textContent.toLowerCase();
      const hit = (!danger || row.dataset.danger === danger) && words.every((w) => text.includes(w));
      row.hidden = !hit;
      hits += hit;
    }
    page.querySelector("[data-nohit]").hidden = hits > 0;
  };
  page.addEventListener("input", (event) => event.target.closest("[data-filter]") && filter());
  page.addEventListener("submit", (event) => event.preventDefault());

  // buttons -----------------------------------------------------------------------------------------------------
  let paused = false;
  page.addEventListener("click", async (event) => {
    if (event.target.closest("[data-clear]")) {
      page.querySelector("[data-filter]").reset();
      filter();
    }
    if (event.target.closest("[data-live]")) {
      paused = !paused;
      live();
      if (!paused) refresh();
    }
    const copy = event.target.closest("[data-copy]");
    if (copy) {
      const said = copy.textContent;
      copy.textContent = (await copied(copy.dataset.copy)) ? "Copied" : "Select it";
      setTimeout(() => { copy.textContent = said; }, 1500);
    }
  });
  const copied = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  };

  // refresh -----------------------------------------------------------------------------------------------------
  let trouble = "";
  let asking = false;
  const live = () => {
    const button = page.querySelector("[data-live]");
    if (!button) return;
    button.setAttribute("aria-pressed", String(!paused));
    button.parentElement.classList.toggle("stale", Boolean(trouble));
    button.querySelector("[data-live-text]").textContent =
      trouble || (paused ? "paused" : `refreshes every ${EVERY_MS / 1000} s`);
  };
  // where the focus is, so that it can be found again on the page that takes this one's place
  const placeOf = (element) => {
    if (!element || !page.contains(element)) return null;
    const value = (name) => `[${name}="${CSS.escape(element.getAttribute(name))}"]`;
    const named = ["data-i", "data-copy", "href"].find((name) => element.hasAttribute(name));
    const kind = ["data-live", "data-clear", "data-chart"].find((name) => element.hasAttribute(name));
    const selector = named ? element.localName + value(named) : kind ? `[${kind}]` : null;
    return selector && [selector, [...page.querySelectorAll(selector)].indexOf(element)];
  };
  const refresh = async () => {
    // one question at a time: a server that hangs is not asked again and again
    if (asking) return undefined;
    asking = true;
    const given_up = new AbortController();
    const patience = setTimeout(() => given_up.abort(), PATIENCE_MS);
    let answer;
    let text;
    try {
      answer = await fetch(location.href, {
        headers: { "X-Offload-Part": "1" }, credentials: "same-origin", signal: given_up.signal,
      });
      text = await answer.text();
    } catch {
      trouble = "Airflow does not answer; what you see is old";
      return live();
    } finally {
      clearTimeout(patience);
      asking = false;
    }
    // what a proxy or a log-in page says is no part of this page, and would end its refreshing
    const ours = answer.headers.has("X-Offload");
    if (!ours || (!answer.ok && answer.status !== 503)) {
      trouble = answer.status === 401 ? "your session has ended: log in again"
        : `not refreshed: ${answer.ok ? "something else answered" : `HTTP ${answer.status}`}; what you see is old`;
      return live();
    }
    trouble = "";
    // who marks a command to copy it by hand keeps what is marked
    const marked = getSelection();
    if (marked && !marked.isCollapsed && page.contains(marked.anchorNode)) return live();
    const form = page.querySelector("[data-filter]");
    const kept = form && [form.q.value, form.danger.value, form.q.selectionStart];
    const typing = document.activeElement?.name;
    const focused = placeOf(document.activeElement);
    const scrolled = [...page.querySelectorAll(".scroll, .heat")].map((box) => [box.scrollLeft, box.scrollTop]);
    const read_at = [...page.querySelectorAll("[data-chart]")].map((plot) => plot.dataset.at);
    hide();
    // made by our own templates, which escape every value
    page.innerHTML = text;
    const fresh = page.querySelector("[data-filter]");
    if (kept && fresh) {
      [fresh.q.value, fresh.danger.value] = kept;
      filter();
      if (typing === "q") { fresh.q.focus({ preventScroll: true }); fresh.q.setSelectionRange(kept[2], kept[2]); }
      if (typing === "danger") fresh.querySelector("[name=danger]:checked").focus({ preventScroll: true });
    }
    page.querySelectorAll(".scroll, .heat").forEach((box, n) => {
      if (scrolled[n]) [box.scrollLeft, box.scrollTop] = scrolled[n];
    });
    live();
    ready();
    page.querySelectorAll("[data-chart]").forEach((plot, n) => {
      if (read_at[n] !== undefined) place(plot, Number(read_at[n]));
    });
    if (focused) page.querySelectorAll(focused[0])[focused[1]]?.focus({ preventScroll: true });
  };
  setInterval(() => {
    if (!paused && !document.hidden && page.querySelector("[data-live]")) refresh();
  }, EVERY_MS);

  // windows -----------------------------------------------------------------------------------------------------
  const number = (n) => n.toLocaleString("en").replaceAll(",", "\u202f");
  const stamp = (ms) => new Date(ms).toISOString().slice(0, 19).replace("T", " ");
  const WORDS = {
    shipped: "shipped", healed: "healed: shipped again, with late or changed rows", empty: "seen empty",
    pending: "pending: the next run looks at it",
    lost: "lost, as far as is known: its rows expired in ClickHouse before they were shipped", differs: "differs from ClickHouse, and is left as it is",
    expired: "shipped; its rows have begun to expire in ClickHouse", open: "not settled yet",
  };
  const REASONS = {
    expiring: "its rows are expiring in ClickHouse", shrunk: "ClickHouse holds fewer rows, and deletes are kept",
    verified: "verify or reconcile saw that ClickHouse and Iceberg differ here",
    "gone-in-source": "rows of it went with a dropped partition or a shortened TTL",
  };
  let facts = null;
  const lines = (cell) => {
    const [rows, was, source, plan, recorded, why, verified] = facts.cells[cell.dataset.i];
    const start = facts.start + cell.dataset.i * facts.width;
    const fate = [...cell.classList].find((c) => c in WORDS);
    const out = [`${stamp(start).slice(0, 16)} – ${stamp(start + facts.width).slice(11, 16)} UTC`, WORDS[fate]];
    if (rows) out.push(`${number(rows)} rows${was === null ? "" : `, ${number(was)} before it was healed`}`);
    if (source !== null) out.push(`${number(source)} rows in ClickHouse`);
    if (why) out.push(REASONS[why] ?? why);
    if (plan !== null) {
      const p = facts.plans[plan];
      out.push(`plan ${p.id.slice(0, 8)}${p.generation === null ? "" : `, generation ${p.generation}`}`);
      if (p.snapshot) out.push(`snapshot ${p.snapshot}`);
    }
    if (recorded) out.push(`recorded ${stamp(recorded)} UTC`);
    if (verified) out.push(`last verified ${stamp(verified)} UTC`);
    return out;
  };
  let tip = null;
  const show = (cell) => {
    if (!facts) return;
    const said = lines(cell);
    cell.setAttribute("aria-label", said.join(", "));
    tip ??= Object.assign(document.createElement("div"), { id: "tip" });
    tip.setAttribute("role", "tooltip");
    tip.replaceChildren(...said.map((line, n) => Object.assign(document.createElement(n ? "div" : "b"), { textContent: line })));
    document.body.append(tip);
    const box = cell.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.left + box.width / 2 - tip.offsetWidth / 2), innerWidth - tip.offsetWidth - 8);
    const above = box.top - tip.offsetHeight - 8;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 4 ? above : box.bottom + 8}px`;
  };
  const hide = () => tip?.remove();
  const cellOf = (event) => event.target.closest?.("[data-heat] [data-i]");
  page.addEventListener("pointerover", (event) => (cellOf(event) ? show(cellOf(event)) : hide()));
  page.addEventListener("pointerleave", hide);
  page.addEventListener("focusin", (event) => cellOf(event) && show(cellOf(event)));
  page.addEventListener("focusout", hide);
  page.addEventListener("click", (event) => cellOf(event)?.focus());
  addEventListener("scroll", hide, true);
  page.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return hide();
    const cell = cellOf(event);
    if (!cell) return undefined;
    const row = cell.parentElement;
    const wide = row.querySelectorAll("[data-i]").length;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -wide, ArrowDown: wide }[event.key];
    if (!step) return undefined;
    event.preventDefault();
    const next = page.querySelector(`[data-i="${Number(cell.dataset.i) + step}"]`);
    if (next) {
      cell.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    }
    return undefined;
  });

  // charts ------------------------------------------------------------------------------------------------------
  const read = (plot, place) => {
    const readings = JSON.parse(plot.querySelector("script").textContent);
    const [x, text] = readings.reduce((a, b) => (Math.abs(b[0] - place) < Math.abs(a[0] - place) ? b : a));
    plot.querySelector("output").textContent = text;
    const line = plot.querySelector(".cursor");
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
    line.setAttribute("visibility", "visible");
    plot.dataset.at = String(readings.findIndex((r) => r[0] === x));
  };
  // two readings may lie at one place: by number both can be read
  const place = (plot, wanted) => {
    const readings = JSON.parse(plot.querySelector("script").textContent);
    const at = Math.min(Math.max(0, wanted), readings.length - 1);
    read(plot, readings[at][0]);
    plot.dataset.at = String(at);
    plot.querySelector("output").textContent = readings[at][1];
  };
  page.addEventListener("pointermove", (event) => {
    const plot = event.target.closest("[data-chart]");
    if (!plot) return;
    const box = plot.querySelector("svg").getBoundingClientRect();
    read(plot, ((event.clientX - box.left) / box.width) * 1000);
  });
  page.addEventListener("keydown", (event) => {
    const plot = event.target.closest("[data-chart]");
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!plot || !step) return;
    event.preventDefault();
    // nothing read yet: the first press goes to the newest
    place(plot, Number(plot.dataset.at ?? Infinity) + step);
  });

  const ready = () => {
    const heat = page.querySelector("[data-heat]");
    const found = page.querySelector("[data-facts]");
    facts = found && JSON.parse(found.textContent);
    if (!heat) return;
    for (const cell of heat.querySelectorAll("[data-i]")) cell.tabIndex = -1;
    const cells = heat.querySelectorAll(".shipped, .healed, .expired, .differs, .pending, .lost");
    const chosen = document.activeElement?.dataset?.i ? document.activeElement : cells[cells.length - 1];
    if (chosen) chosen.tabIndex = 0;
  };
  ready();
  // what was typed before this script came
  filter();
})();
