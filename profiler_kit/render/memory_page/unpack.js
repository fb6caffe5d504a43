// ---- unpack.js: base64 of gzip -> head and typed columns (written by pack.py) ----

export async function unpack(text) {
  const raw = atob(text.trim());
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const buffer = await new Response(stream).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  return { head, planes: new Uint8Array(buffer, 4 + length) };
}

// A column is stored as byte planes: all lowest bytes first. Above 32 bits the numbers become doubles.
export function column(planes, [offset, items, width]) {
  if (width === 1) return planes.slice(offset, offset + items);
  const low = width <= 2 ? new Uint16Array(items) : new Uint32Array(items);
  for (let plane = 0; plane < Math.min(width, 4); plane++) {
    const from = offset + plane * items, shift = 8 * plane;
    for (let i = 0; i < items; i++) low[i] |= planes[from + i] << shift;
  }
  if (width <= 4) return low;
  const wide = new Float64Array(items);
  for (let i = 0; i < items; i++) wide[i] = low[i];
  for (let plane = 4; plane < width; plane++) {
    const from = offset + plane * items, factor = 2 ** (8 * plane);
    for (let i = 0; i < items; i++) wide[i] += planes[from + i] * factor;
  }
  return wide;
}

export function running(differences, Kind = Float64Array) {
  const out = new Kind(differences.length);
  let sum = 0;
  for (let i = 0; i < out.length; i++) out[i] = sum += differences[i];
  return out;
}
