"use strict";
// The data: names of the facts, a table of values for each, and a row of indices a picture, so that
// fifty thousand pictures repeat nothing. Everything is shown through textContent: no name is markup.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const GAP = 2, LEFT = 16, HEAD = 26;
const fact = (picture, name) => {
  const place = data.names.indexOf(name);
  return place < 0 ? "" : data.values[place][data.pictures[picture].facts[place]];
};
const text = (value) => (value === null || value === undefined ? "none" : String(value));

const urls = new Map(); // thumbnail sheet -> object URL, made when it is first seen
function sheet(index) {
  if (!urls.has(index)) {
    const bytes = Uint8Array.from(atob(data.sheets[index]), (c) => c.charCodeAt(0));
    urls.set(index, URL.createObjectURL(new Blob([bytes], { type: "image/webp" })));
  }
  return urls.get(index);
}

function choices(select, first) {
  const names = data.names.filter((name, place) => data.values[place].length > 1);
  for (const name of [first, ...names]) select.add(new Option(name));
}

const order = (a, b) =>
  typeof a === "number" && typeof b === "number" ? a - b : text(a).localeCompare(text(b), undefined, { numeric: true });

function groups(pictures, name) {
  const found = new Map();
  for (const picture of pictures) {
    const key = fact(picture, name);
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(picture);
  }
  return [...found].sort((a, b) => order(a[0], b[0]));
}

let heads = [], tiles = [], shown = new Map(), open = -1, height = 0, rest = "";

let lines; // what is searched, made when something is first looked for
function wanted() {
  const words = $("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  const all = data.pictures.map((_, picture) => picture);
  if (!words.length) return all;
  lines ||= all.map((picture) => {
    const row = [data.pictures[picture].file, ...data.names.map((name) => `${name}=${text(fact(picture, name))}`)];
    return row.join(" ").toLowerCase();
  });
  return all.filter((picture) => words.every((word) => lines[picture].includes(word)));
}

// Under each other what is equal but for the columns' fact: the same class and seed, say.
function aligned(pictures, columns) {
  const others = data.names.filter((name) => ["class", "seed"].includes(name) && name !== columns);
  const cells = groups(pictures, columns);
  const rows = new Map();
  cells.forEach(([, members], column) => {
    const times = new Map();
    for (const picture of members) {
      const same = others.map((name) => text(fact(picture, name))).join("\u0000");
      const nth = times.get(same) || 0;
      times.set(same, nth + 1);
      const key = `${same}\u0000${nth}`;
      if (!rows.has(key)) rows.set(key, []);
      rows.get(key).push([column, picture]);
    }
  });
  return { titles: cells.map(([value]) => `${columns} ${text(value)}`), rows: [...rows.values()] };
}

function layout() {
  const zoom = Number($("zoom").value), side = data.side * zoom;
  const across = Math.max(1, Math.floor(($("wall").clientWidth - 2 * LEFT + GAP) / (side + GAP)));
  const pictures = wanted(), rows = $("rows").value, columns = $("columns").value;
  const sections = $("rows").selectedIndex > 0 ? groups(pictures, rows) : [["", pictures]];
  heads = []; tiles = [];
  let y = 8;
  const place = (picture, column, top) => tiles.push({ picture, x: LEFT + column * (side + GAP), y: top, side });
  for (const [value, members] of sections) {
    if (value !== "" || sections.length > 1) {
      heads.push({ text: `${rows} ${text(value)} · ${members.length}`, x: LEFT, y, kind: "head" });
      y += HEAD;
    }
    if ($("columns").selectedIndex > 0) {
      const wide = Math.max(side, 120);
      const { titles, rows: lines } = aligned(members, columns);
      titles.forEach((title, column) => heads.push({ text: title, x: LEFT + column * (wide + GAP), y, width: wide, kind: "head column" }));
      y += HEAD;
      for (const line of lines) {
        for (const [column, picture] of line) tiles.push({ picture, x: LEFT + column * (wide + GAP), y, side });
        y += side + GAP;
      }
    } else {
      members.forEach((picture, nth) => place(picture, nth % across, y + Math.floor(nth / across) * (side + GAP)));
      y += Math.ceil(members.length / across) * (side + GAP);
    }
    y += 10;
  }
  height = y;
  const right = tiles.reduce((most, tile) => Math.max(most, tile.x + tile.side), 0);
  $("space").style.height = `${height}px`;
  $("space").style.width = $("columns").selectedIndex > 0 ? `${right + LEFT}px` : "auto";
  $("count").textContent = `${pictures.length} of ${data.pictures.length} pictures`;
  $("space").replaceChildren();
  shown = new Map();
  draw();
}

// Only what is in sight is in the page.
function draw() {
  const top = $("wall").scrollTop - 300, bottom = top + $("wall").clientHeight + 600;
  const inSight = (box) => box.y + (box.side || HEAD) >= top && box.y <= bottom;
  const now = new Set();
  for (const box of [...heads, ...tiles]) {
    if (!inSight(box)) continue;
    now.add(box);
    if (!shown.has(box)) shown.set(box, $("space").appendChild(box.kind ? head(box) : tile(box)));
  }
  for (const [box, element] of shown) if (!now.has(box)) { element.remove(); shown.delete(box); }
}

function head(box) {
  const element = document.createElement("div");
  element.className = box.kind;
  element.textContent = box.text;
  element.title = box.text;
  Object.assign(element.style, { left: `${box.x}px`, top: `${box.y}px`, width: box.width ? `${box.width}px` : "auto" });
  return element;
}

function tile(box) {
  const element = document.createElement("button");
  const nth = box.picture % data.each, scale = box.side / data.side;
  element.className = "tile";
  element.ariaLabel = element.title = described(box.picture);
  Object.assign(element.style, {
    left: `${box.x}px`, top: `${box.y}px`, width: `${box.side}px`, height: `${box.side}px`,
    backgroundImage: `url("${sheet(Math.floor(box.picture / data.each))}")`,
    backgroundSize: `${data.across * data.side * scale}px auto`,
    backgroundPosition: `${-(nth % data.across) * box.side}px ${-Math.floor(nth / data.across) * box.side}px`,
  });
  element.addEventListener("click", () => show(box.picture));
  return element;
}

function described(picture) {
  const parts = ["class", "seed", "scale", "cfg"].filter((name) => data.names.includes(name));
  return parts.map((name) => `${name} ${text(fact(picture, name))}`).join(", ") || data.pictures[picture].file;
}

function show(picture) {
  open = picture;
  const entry = data.pictures[picture];
  $("picture").src = entry.file.split("/").map(encodeURIComponent).join("/");
  $("picture").alt = described(picture);
  $("name").textContent = entry.file;
  const rows = data.names.map((name) => {
    const row = document.createElement("tr");
    row.appendChild(document.createElement("th")).textContent = name;
    row.appendChild(document.createElement("td")).textContent = text(fact(picture, name));
    return row;
  });
  $("facts").replaceChildren(...rows);
  const words = ["adm repro", "adm sample --like", "adm info"].map((verb) => `${verb} ${quoted(entry.file)}`);
  $("commands").replaceChildren(...words.map((command) => {
    const item = document.createElement("li"), copy = document.createElement("button");
    const code = Object.assign(document.createElement("code"), { textContent: command });
    copy.textContent = "Copy";
    copy.ariaLabel = `Copy: ${command}`;
    copy.addEventListener("click", () => navigator.clipboard.writeText(command).then(
      () => { copy.textContent = "Copied"; },
      () => getSelection().selectAllChildren(code), // not allowed: Ctrl-C then does it
    ));
    item.append(copy, code);
    return item;
  }));
  $("recipe").textContent = "";
  recipe(picture).then((found) => {
    if (open === picture) $("recipe").textContent = found ? JSON.stringify(found, null, 2) : "This picture carries none.";
  });
  if (!$("one").open) $("one").showModal();
}

const quoted = (path) => (/^[\w@%+=:,./-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`);

async function recipe(picture) {
  const bytes = Uint8Array.from(atob(data.recipes[Math.floor(picture / data.each)]), (c) => c.charCodeAt(0));
  const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return (await new Response(plain).json())[picture % data.each];
}

function go(by) {
  const places = tiles.map((box) => box.picture), next = places[places.indexOf(open) + by];
  if (next !== undefined) show(next);
}

// The tile that an arrow key leads to: the next or last one, or the nearest in the row below or above.
function neighbour(from, key) {
  const nth = tiles.indexOf(from);
  if (key === "ArrowLeft") return tiles[nth - 1];
  if (key === "ArrowRight") return tiles[nth + 1];
  const down = key === "ArrowDown", beyond = (box) => (down ? box.y > from.y : box.y < from.y);
  const away = (box) => Math.abs(box.y - from.y) * 1e6 + Math.abs(box.x - from.x);
  let best;
  for (const box of tiles) if (beyond(box) && (!best || away(box) < away(best))) best = box;
  return best;
}

function move(event) {
  const from = [...shown].find(([, element]) => element === document.activeElement);
  const to = from && from[0].side && neighbour(from[0], event.key);
  if (!from || !from[0].side) return;
  event.preventDefault();
  if (!to) return;
  const wall = $("wall");
  if (to.y < wall.scrollTop) wall.scrollTop = to.y - HEAD;
  if (to.y + to.side > wall.scrollTop + wall.clientHeight) wall.scrollTop = to.y + to.side - wall.clientHeight + GAP;
  draw();
  shown.get(to).focus({ preventScroll: true });
}

choices($("rows"), "all together");
choices($("columns"), "no");
if (data.names.includes("class")) $("rows").value = "class";
for (const part of location.hash.slice(1).split("&")) { // #rows=class&columns=scale&find=lion&show=3
  const [name, value = ""] = part.split("=").map(decodeURIComponent);
  if (["rows", "columns", "find", "zoom"].includes(name)) $(name).value = value;
}
for (const id of ["rows", "columns", "zoom"]) $(id).addEventListener("change", layout);
$("find").addEventListener("input", layout);
$("wall").addEventListener("scroll", () => requestAnimationFrame(draw));
$("before").addEventListener("click", () => go(-1));
$("after").addEventListener("click", () => go(1));
addEventListener("resize", layout);
addEventListener("keydown", (event) => {
  if ($("one").open) {
    if (event.key === "ArrowLeft") go(-1);
    if (event.key === "ArrowRight") go(1);
  } else if (event.key === "/" && document.activeElement !== $("find")) {
    event.preventDefault();
    $("find").focus();
  } else if (/^Arrow(Left|Right|Up|Down)$/.test(event.key)) move(event);
});
layout();
const asked = /(?:^#|&)show=(\d+)/.exec(location.hash);
if (asked && data.pictures[asked[1]]) show(Number(asked[1]));
