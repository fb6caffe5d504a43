// Which lanes are shown, how many of their rows, and where each row lies.

const AXIS = 26, GAP = 6, PAD = 2; // px
const GROUPS = { request: 'Requests', critical: 'Critical path', gpu_region: 'Regions on GPUs', gpu: 'GPU work', counter: 'Counters', region: 'Host regions',
  python: 'Python', operator: 'Operators', launch: 'Launches' };
const SUMMARIES = ['python', 'operator', 'launch']; // closed at first: their first row alone
const HARDLY = 0.002; // of a stream's time: so little overlap is folded at first
const TALL = 560; // px the rows share while they can

class Lanes {
  // `before`: the lanes this one follows, whose choices it keeps.
  constructor(meta, before) {
    this.tracks = meta.tracks;
    this.hidden = before?.hidden ?? new Set();
    const open = new Map(before?.tracks.map(track => [track.label, track.open]));
    for (const track of this.tracks) {
      track.open = open.get(track.label) ?? !(SUMMARIES.includes(track.kind) || track.kind === 'gpu' && track.beyond < HARDLY);
    }
    this.place();
  }

  get kinds() { return Object.keys(GROUPS).filter(kind => this.tracks.some(track => track.kind === kind)); }
  get shown() { return this.tracks.filter(track => !this.hidden.has(track.kind)); }
  visible(track) { return track.open ? track.rows : 1; }
  get rowNumbers() { return this.rows.flatMap((place, number) => place ? [number] : []); }

  place() {
    const count = this.shown.reduce((sum, track) => sum + this.visible(track), 0);
    const room = Math.max(7, Math.min(22, TALL / Math.max(1, count)));
    this.rows = [];
    let y = AXIS + 4;
    for (const track of this.shown) {
      const height = track.kind === 'gpu' ? Math.max(room, Math.min(30, room * 1.3)) : room;
      track.y = y;
      for (let i = 0; i < this.visible(track); i++) {
        this.rows[track.first + i] = { y, height, track };
        y += height + PAD;
      }
      track.height = y - track.y - PAD;
      y += GAP;
    }
    this.height = y + 2;
  }

  row(y) { return this.rows.findIndex(place => place && y >= place.y - PAD / 2 && y < place.y + place.height + PAD / 2); }
  track(y) { return this.shown.find(track => y >= track.y && y < track.y + track.height + GAP / 2); }
  trackOf(row) { return this.tracks.find(track => row >= track.first && row < track.first + track.rows); }

  toggle(track) {
    track.open = !track.open;
    this.place();
  }

  hide(kind, hidden) {
    hidden ? this.hidden.add(kind) : this.hidden.delete(kind);
    this.place();
  }

  // Show a row that is hidden or folded away; says whether anything changed.
  reveal(row) {
    if (this.rows[row]) return false;
    const track = this.trackOf(row);
    if (!track) return false;
    this.hidden.delete(track.kind);
    track.open ||= row > track.first;
    this.place();
    return true;
  }
}
