// What the pages do beyond showing: sort, filter, choose. Without it every fact is there as well.
"use strict";
(() => {
  const MINUS_DAYS = 86400000;
  const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];
  const dataElement = document.getElementById("data");
  const data = dataElement ? JSON.parse(dataElement.textContent) : null;
  const byId = (id) => document.getElementById(id);

  // Numbers as people read them: as aggregator/model/numbers.py writes them.
  const grouped = (number, digits = 0) =>
    number.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  function size(count) {
    let number = Number(count);
    let unit = 0;
    while (Math.abs(number) >= 999.95 && unit < UNITS.length - 1) {
      number /= 1000;
      unit += 1;
    }
    return `${grouped(number, unit ? 1 : 0)} ${UNITS[unit]}`;
  }
  // Halves go to the even neighbour, as the reports round.
  function even(number) {
    const floor = Math.floor(number);
    if (number - floor !== 0.5) return Math.round(number);
    return floor % 2 ? floor + 1 : floor;
  }
  const rounded = (number) => even(number * 10) / 10;
  const signed = (number) => (number < 0 ? "" : "+") + grouped(number || 0, 1);
  const dash = { text: "-", value: "" };
  const whole = (number) => (number === null ? dash : { text: grouped(number), value: String(number) });
  const volume = (number) => (number === null ? dash : { text: size(number), value: String(number) });
  const share = (number) =>
    number === null ? dash : { text: `${number.toFixed(1)} %`, value: number.toFixed(1) };
  const moved = (number, unit) =>
    number === null ? dash : { text: signed(number) + unit, value: number.toFixed(1) };
  const percent = (pair) => (pair && pair[0] ? rounded((100 * pair[1]) / pair[0]) : null);

  // Tables: every header is a button that sorts, and a field filters the rows.
  function put(cell, made) {
    cell.firstChild ? (cell.firstChild.nodeValue = made.text) : cell.append(made.text);
    if (made.value === "") delete cell.dataset.value;
    else cell.dataset.value = made.value;
  }
  function keyOf(cell) {
    const text = cell.dataset.value !== undefined ? cell.dataset.value : cell.textContent;
    const number = Number(text);
    return text === "" || text === "-" ? null : Number.isNaN(number) ? text : number;
  }
  function compare(one, other) {
    if (one === null || other === null) return one === other ? 0 : one === null ? 1 : -1;
    if (typeof one === "number" && typeof other === "number") return one - other;
    return String(one).localeCompare(String(other), "en");
  }
  function sort(table, index, descending) {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => ({ row, key: keyOf(row.cells[index]) }));
    rows.sort((one, other) => {
      if (one.key === null || other.key === null) return compare(one.key, other.key);
      return descending ? compare(other.key, one.key) : compare(one.key, other.key);
    });
    body.append(...rows.map((one) => one.row));
    [...table.tHead.rows[0].cells].forEach((head, number) => {
      if (number === index) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  }
  function sortAgain(table) {
    const heads = [...table.tHead.rows[0].cells];
    const index = heads.findIndex((head) => head.hasAttribute("aria-sort"));
    if (index >= 0) sort(table, index, heads[index].getAttribute("aria-sort") === "descending");
  }
  function makeSortable(table) {
    [...table.tHead.rows[0].cells].forEach((head, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        sort(table, index, now ? now === "ascending" : head.classList.contains("number"));
      });
    });
  }
  function makeFilter(tool) {
    const table = byId(tool.dataset.for);
    const place = document.createElement("p");
    const label = document.createElement("label");
    const field = document.createElement("input");
    const count = document.createElement("output");
    field.type = "search";
    field.id = `${table.id}-filter`;
    label.htmlFor = field.id;
    label.append(tool.dataset.filter);
    place.append(label, field);
    tool.append(place, count);
    const apply = () => {
      const words = field.value.trim().toLowerCase();
      let shown = 0;
      for (const row of table.tBodies[0].rows) {
        row.hidden = !row.textContent.toLowerCase().includes(words);
        shown += row.hidden ? 0 : 1;
      }
      count.textContent = words ? `${shown} of ${table.tBodies[0].rows.length}` : "";
    };
    field.addEventListener("input", apply);
    table.addEventListener("rows", apply);
  }

  // Charts: as aggregator/pictures/chart.py draws a single line.
  const NAMES = "http://www.w3.org/2000/svg";
  function element(name, attributes, text) {
    const made = document.createElementNS(NAMES, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }
  function ticks(low, high, most = 5) {
    if (!(high > low)) high = low + (Math.abs(low) || 1);
    const raw = (high - low) / (most - 1);
    const unit = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((one) => one * unit).find((one) => one >= raw * 0.999);
    const first = Math.floor(low / step + 1e-9);
    const last = Math.max(Math.ceil(high / step - 1e-9), first + 1);
    return Array.from({ length: last - first + 1 }, (_, number) => (first + number) * step);
  }
  function draw(figure, title, labels, values, unit, fromZero) {
    const width = 560, height = 220, letter = 9, top = 12, bottom = height - 26, right = width - 14;
    const known = values.filter((value) => value !== null);
    let low = known.length ? Math.min(...known) : 0;
    const high = known.length ? Math.max(...known) : 1;
    low = fromZero ? Math.min(low, 0) : Math.min(low, high - 5);
    const scale = ticks(low, high);
    const texts = scale.map(unit);
    const left = 8 + Math.max(...texts.map((text) => text.length)) * letter;
    const x = (index) => left + ((right - left) * index) / Math.max(1, values.length - 1);
    const y = (value) => bottom - ((bottom - top) * (value - scale[0])) / (scale.at(-1) - scale[0]);
    const svg = element("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img" });
    const last = known.length ? unit(known.at(-1)) : "-";
    const told = known.length ? `Least ${unit(Math.min(...known))}, most ${unit(high)}, last ${last}.` : "Nothing to show.";
    svg.append(element("title", {}, title), element("desc", {}, told));
    scale.forEach((tick, number) => {
      svg.append(element("path", { class: "grid", d: `M${left} ${y(tick).toFixed(1)}H${right}` }));
      svg.append(element("text", { x: left - 6, y: (y(tick) + 4).toFixed(1), "text-anchor": "end" }, texts[number]));
    });
    const starts = labels.map((label, number) => [label, number]).filter(([label]) => label.endsWith("-01"));
    const many = labels.length > 75 && starts.length > 1;
    const most = Math.max(2, Math.floor((right - left) / ((many ? 7 : 10) * letter + 18)));
    const chosen = many
      ? starts.filter((_, number) => number % Math.ceil(starts.length / most) === 0)
      : [...new Set(Array.from({ length: most }, (_, number) => Math.round((number * (labels.length - 1)) / (most - 1))))].map((number) => [labels[number], number]);
    for (const [label, number] of chosen) {
      const side = x(number) - left < 36 ? "start" : right - x(number) < 36 ? "end" : "middle";
      svg.append(element("path", { class: "axis", d: `M${x(number).toFixed(1)} ${bottom}v4` }));
      svg.append(element("text", { x: x(number).toFixed(1), y: bottom + 17, "text-anchor": side }, many ? label.slice(0, 7) : label));
    }
    let path = "";
    values.forEach((value, number) => {
      if (value === null) return;
      const begins = number === 0 || values[number - 1] === null;
      path += `${begins ? "M" : "L"}${x(number).toFixed(1)} ${y(value).toFixed(1)}`;
    });
    svg.append(element("path", { class: "line s0", d: path }));
    figure.querySelector("figcaption").textContent = title;
    figure.querySelector(".drawing").replaceChildren(svg);
    figure.querySelector("summary .unseen").textContent = `: ${title}`;
    const table = figure.querySelector("table");
    table.caption.textContent = `${title}, by day`;
    const rows = labels
      .map((label, number) => [label, values[number]])
      .filter(([, value]) => value !== null)
      .reverse()
      .map(([label, value]) => line([{ text: label, value: label }, { text: unit(value), value: String(value) }], [false, true]));
    table.tBodies[0].replaceChildren(...rows);
  }
  function line(cells, numbers) {
    const row = document.createElement("tr");
    cells.forEach((made, number) => {
      const cell = document.createElement(number ? "td" : "th");
      if (!number) cell.scope = "row";
      if (numbers[number]) cell.className = "number";
      put(cell, made);
      row.append(cell);
    });
    return row;
  }
  const unpacked = (text) => text.split(",").map((part) => (part === "" ? null : parseInt(part, 36)));
  const pairs = (text) => {
    const numbers = unpacked(text);
    return Array.from({ length: numbers.length / 2 }, (_, at) =>
      numbers[2 * at] === null ? null : [numbers[2 * at], numbers[2 * at + 1]]);
  };
  const dayAfter = (first, number) => new Date(Date.parse(`${first}T00:00:00Z`) + number * MINUS_DAYS).toISOString().slice(0, 10);

  // Sums are exact: bytes of many days are beyond what a number holds.
  function added(values) {
    const known = values.filter((value) => value !== null);
    return known.length ? known.reduce((sum, value) => sum + BigInt(value), 0n) : null;
  }
  const knownOf = (values) => values.filter((value) => value !== null);
  function meanOf(values) {
    const known = knownOf(values);
    return known.length ? even(Number(added(known)) / known.length) : null;
  }
  function change(now, before) {
    const one = knownOf(now), other = knownOf(before);
    if (!one.length || !other.length) return null;
    const base = added(other) * BigInt(one.length);
    if (base === 0n) return null;
    return rounded((100 * Number(added(one) * BigInt(other.length) - base)) / Number(base));
  }

  function locationsPage() {
    const table = byId("locations");
    const columns = Object.fromEntries([...table.tHead.rows[0].cells].map((head, index) => [head.dataset.key, index]));
    const period = document.querySelector('[data-controls="locations"]');
    const one = document.querySelector('[data-controls="location"]');
    for (const series of [data.users, data.bytes])
      for (const name of Object.keys(series)) series[name] = unpacked(series[name]);
    const labels = Array.from({ length: data.days }, (_, number) => dayAfter(data.first, number));
    const lastDay = labels.at(-1);
    for (const form of [period, one]) form.hidden = false;
    const together = (series) =>
      labels.map((_, day) => {
        const sum = added(Object.values(series).map((values) => values[day]));
        return sum === null ? null : Number(sum);
      });
    function choose(name) {
      one.elements.location.value = name;
      const whose = name ? ` at ${name}` : "";
      const users = name ? data.users[name] : together(data.users);
      const bytes = name ? data.bytes[name] : together(data.bytes);
      draw(byId("chart-users"), `Users a day${whose}`, labels, users, (value) => grouped(value), true);
      draw(byId("chart-bytes"), `Bytes a day${whose}`, labels, bytes, size, true);
    }
    for (const row of table.tBodies[0].rows) {
      const name = row.cells[0].dataset.value;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.title = `Draw ${name}`;
      row.cells[0].replaceChildren(button);
      button.addEventListener("click", () => {
        choose(name);
        one.elements.location.focus();
        byId("one").scrollIntoView();
      });
    }
    one.addEventListener("change", () => choose(one.elements.location.value));
    one.addEventListener("submit", (event) => event.preventDefault());
    period.addEventListener("submit", (event) => event.preventDefault());
    period.addEventListener("change", () => {
      const days = Number(period.elements.days.value) || data.days;
      for (const row of table.tBodies[0].rows) {
        const name = row.cells[0].dataset.value;
        const users = data.users[name], bytes = data.bytes[name];
        const earlier = days < data.days ? bytes.slice(-2 * days, -days) : [];
        put(row.cells[columns.users], whole(meanOf(users.slice(-days))));
        put(row.cells[columns.bytes], volume(added(bytes.slice(-days))));
        put(row.cells[columns.change], moved(change(bytes.slice(-days), earlier), " %"));
      }
      table.caption.textContent = `Locations, ${Math.min(days, data.days)} days to ${lastDay}`;
      sortAgain(table);
    });
  }

  function connectionsPage() {
    const form = document.querySelector('[data-controls="connections"]');
    form.hidden = false;
    data.days = data.days.map(pairs);
    for (const window of Object.values(data.windows)) {
      window.isps = window.isps.map(pairs);
      for (const when of ["now", "before"]) {
        const numbers = unpacked(window[when]);
        window[when] = Array.from({ length: Math.floor(numbers.length / 4) }, (_, at) => numbers.slice(4 * at, 4 * at + 4));
      }
    }
    const outcome = (now, before) => {
      const rate = percent(now), earlier = percent(before);
      const points = rate === null || earlier === null ? null : rounded(rate - earlier);
      return [whole(now ? now[0] : null), share(rate), share(earlier), moved(points, "")];
    };
    function grouped2(rows, part, other, wanted) {
      const sums = new Map();
      for (const row of rows) {
        if (wanted !== null && row[other] !== wanted) continue;
        const sum = sums.get(row[part]) || [0, 0];
        sums.set(row[part], [sum[0] + row[2], sum[1] + row[3]]);
      }
      return sums;
    }
    function fill(id, caption, rows) {
      const table = byId(id);
      if (!table) return;
      table.caption.textContent = caption;
      table.tBodies[0].replaceChildren(...rows.map((cells) => line(cells, [false, true, true, true, true])));
      sortAgain(table);
      table.dispatchEvent(new Event("rows"));
    }
    function show() {
      const days = form.elements.days.value;
      const window = data.windows[days];
      const country = form.elements.country.value, place = form.elements.location.value;
      const countryAt = country ? data.countries.indexOf(country) : null;
      const placeAt = place ? data.locations.indexOf(place) : null;
      const from = country ? ` from ${data.names[countryAt]}` : "";
      const span = `${window.first} to ${window.last}, against the ${days} days before`;
      let now = grouped2(window.now, 0, 1, countryAt), before = grouped2(window.before, 0, 1, countryAt);
      const kept = [...now.keys()].filter((key) => placeAt === null || key === placeAt);
      fill("by-location-table", `Success by location${from}, ${span}`,
        kept.map((key) => [{ text: data.locations[key], value: data.locations[key] }, ...outcome(now.get(key), before.get(key))]));
      now = grouped2(window.now, 1, 0, placeAt);
      before = grouped2(window.before, 1, 0, placeAt);
      const codes = [...now.keys()].filter((key) => countryAt === null || key === countryAt);
      fill("by-country-table", `Success by country${place ? ` at ${place}` : ""}, ${span}`,
        codes.map((key) => [{ text: data.names[key], value: data.countries[key] }, ...outcome(now.get(key), before.get(key))]));
      const names = { "-1": "others", 0: "unknown" };
      fill("by-isp-table", `Success by provider, ${span}`,
        data.isps.map((asn, index) => [asn, ...window.isps[index]]).filter(([, found]) => found)
          .map(([asn, found, earlier]) => [{ text: names[asn] || `AS${asn}`, value: String(asn) }, ...outcome(found, earlier)]));
      const series = countryAt === null ? data.days : [data.days[countryAt]];
      const length = data.days.length ? data.days[0].length : 0;
      const values = Array.from({ length }, (_, day) =>
        percent(series.reduce((sum, one) => (one[day] ? [sum[0] + one[day][0], sum[1] + one[day][1]] : sum), [0, 0])));
      const labels = values.map((_, number) => dayAfter(data.first, number));
      draw(byId("chart-success"), `Successful connections${from}, %`, labels, values, (value) => `${value.toFixed(1)} %`, false);
    }
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("change", show);
  }

  document.querySelectorAll("table").forEach(makeSortable);
  document.querySelectorAll(".tool[data-filter]").forEach(makeFilter);
  const page = document.body.dataset.page;
  if (data && page === "locations.html") locationsPage();
  if (data && page === "connections.html") connectionsPage();
  document.documentElement.dataset.ready = "";
})();
