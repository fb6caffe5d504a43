// What the server is asked (app/routes.py): the description once, then tiles, matches and facts of one span.

class Server {
  constructor(base, run, beside, complain) {
    this.base = base;
    this.run = run;
    this.beside = beside; // other runs, drawn with it
    this.complain = complain;
    this.known = new Map(); // facts of spans already asked for
  }

  async get(route, query, kind, signal) {
    const params = new URLSearchParams({ run: this.run, ...query });
    this.beside.forEach(one => params.append('beside', one));
    try {
      const response = await fetch(`${this.base}/${route}?${params}`, { signal });
      if (!response.ok) throw new Error(await response.text());
      const answer = await response[kind]();
      this.complain('');
      return answer;
    } catch (error) {
      if (error.name !== 'AbortError') this.complain(error instanceof TypeError ? 'the server does not answer' : error.message);
      return null;
    }
  }

  describe(by, signal) { return this.get('timeline', { by }, 'json', signal); }

  async tile(by, t0, t1, px, rows, text, signal) {
    const query = { by, t0, t1, px, rows: rows.join(), ...(text ? { q: text } : {}) };
    const buffer = await this.get('tiles', query, 'arrayBuffer', signal);
    if (!buffer) return null;
    const size = new DataView(buffer).getUint32(0, true);
    const tile = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size)));
    const types = { '<f8': Float64Array, '<u4': Uint32Array, '<u2': Uint16Array, '|u1': Uint8Array };
    for (const row of tile.rows) {
      for (const key of ['start', 'dur', 'code', 'busy', 'count', 'hit']) {
        if (row[key]) row[key] = new types[row[key][2]](buffer, 4 + size + row[key][0], row[key][1]);
      }
    }
    return { ...tile, bytes: buffer.byteLength };
  }

  search(by, text, rows, place, back) {
    const query = { by, q: text, rows: rows.join(), t: Math.round(place.t), row: place.row, ...(back ? { back: 1 } : {}) };
    return this.get('search', query, 'json');
  }

  // Facts of the span of a row that is nearest to a time.
  nearest(by, row, at) { return this.get('span', { by, row, at }, 'json'); }

  async span(by, row, index) {
    const key = `${by} ${row} ${index}`;
    if (!this.known.has(key)) {
      if (this.known.size > 300) this.known.clear();
      this.known.set(key, await this.get('span', { by, row, index }, 'json'));
    }
    return this.known.get(key);
  }
}
