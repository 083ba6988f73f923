// Plays recorded episodes of a MuJoCo model. The data are described in page.py.
import * as THREE from 'three';
import { OrbitControls } from 'OrbitControls';

const data = JSON.parse(document.getElementById('data').textContent);
const at = (id) => document.getElementById(id);
const SKY = new THREE.Color(0x9fb3c8);

function bytes(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
}
const floats = (text) => new Float32Array(bytes(text));

// ---------------------------------------------------------------------- scene

function checker(repeats) {
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = 128;
  const pen = canvas.getContext('2d');
  for (let i = 0; i < 4; i++) {
    pen.fillStyle = (i + (i >> 1)) % 2 ? '#7d8b9b' : '#94a1af';
    pen.fillRect((i % 2) * 64, (i >> 1) * 64, 64, 64);
  }
  const texture = new THREE.CanvasTexture(canvas);
  texture.wrapS = texture.wrapT = THREE.RepeatWrapping;
  texture.repeat.set(repeats[0], repeats[1]);
  texture.colorSpace = THREE.SRGBColorSpace;
  texture.anisotropy = 8;
  return texture;
}

function floor(size) {
  // Beyond some metres nobody sees where a plane ends; MuJoCo writes 0 for one without an end.
  const half = size.slice(0, 2).map((x) => (x === 0 || x >= 5 ? 250 : x));
  const tile = data.tile;
  const material = new THREE.MeshStandardMaterial({
    map: checker(half.map((x) => x / tile)), roughness: 0.9,
  });
  return new THREE.Mesh(new THREE.PlaneGeometry(2 * half[0], 2 * half[1]), material);
}

function meshGeometry(mesh) {
  const geometry = new THREE.BufferGeometry();
  geometry.setAttribute('position', new THREE.BufferAttribute(floats(mesh.vertices), 3));
  geometry.setIndex(new THREE.BufferAttribute(new Uint32Array(bytes(mesh.faces)), 1));
  // Faces of their own normals: MuJoCo's meshes have sharp edges.
  const flat = geometry.toNonIndexed();
  flat.computeVertexNormals();
  return flat;
}
const meshes = data.meshes.map(meshGeometry);

function shape(geom) {
  const [a, b, c] = geom.size;
  switch (geom.type) {
    case 'sphere': return new THREE.SphereGeometry(a, 32, 20);
    case 'ellipsoid': return new THREE.SphereGeometry(1, 32, 20).scale(a, b, c);
    case 'capsule': return new THREE.CapsuleGeometry(a, 2 * b, 12, 28).rotateX(Math.PI / 2);
    case 'cylinder': return new THREE.CylinderGeometry(a, a, 2 * b, 32).rotateX(Math.PI / 2);
    case 'box': return new THREE.BoxGeometry(2 * a, 2 * b, 2 * c);
    default: return meshes[geom.mesh];
  }
}

function place(object, pos, quat) {
  object.position.set(...pos);
  object.quaternion.set(quat[1], quat[2], quat[3], quat[0]);
}

const scene = new THREE.Scene();
scene.background = SKY;
scene.fog = new THREE.Fog(SKY, 12 * data.radius, 60 * data.radius);
const bodies = data.bodies.map(() => new THREE.Group());
bodies.forEach((body) => scene.add(body));
for (const geom of data.geoms) {
  let object;
  if (geom.type === 'plane') {
    object = floor(geom.size);
  } else {
    const [r, g, b, alpha] = geom.rgba;
    const color = new THREE.Color().setRGB(r, g, b, THREE.SRGBColorSpace);
    object = new THREE.Mesh(shape(geom), new THREE.MeshStandardMaterial({
      color, roughness: 0.55, metalness: 0.05, transparent: alpha < 1, opacity: alpha,
    }));
    object.castShadow = alpha > 0.5;
  }
  object.receiveShadow = true;
  place(object, geom.pos, geom.quat);
  (geom.body < 0 ? scene : bodies[geom.body]).add(object);
}

scene.add(new THREE.HemisphereLight(0xffffff, 0x8a8f98, 1.6));
const sun = new THREE.DirectionalLight(0xffffff, 2.2);
const reach = 4 * data.radius;
sun.castShadow = true;
sun.shadow.mapSize.set(2048, 2048);
sun.shadow.bias = -0.0005;
sun.shadow.normalBias = 0.01 * data.radius;
Object.assign(sun.shadow.camera, {
  left: -reach, right: reach, top: reach, bottom: -reach, near: 0.1, far: 8 * reach,
});
scene.add(sun, sun.target);

// ---------------------------------------------------------------------- camera

const view = at('view');
const camera = new THREE.PerspectiveCamera(45, 1, 0.01 * data.radius, 400 * data.radius + 100);
camera.up.set(0, 0, 1);
let renderer;
try {
  renderer = new THREE.WebGLRenderer({ antialias: true });
} catch (error) {
  at('title').querySelector('b').textContent = 'This browser has no WebGL, by which this page draws.';
  document.documentElement.dataset.state = 'no WebGL';
  throw error;
}
renderer.shadowMap.enabled = true;
renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
view.append(renderer.domElement);
const controls = new OrbitControls(camera, renderer.domElement);

function resize() {
  const { clientWidth: width, clientHeight: height } = view;
  renderer.setSize(width, height);
  camera.aspect = width / Math.max(height, 1);
  camera.updateProjectionMatrix();
}
addEventListener('resize', () => { resize(); draw(); });

function aim(target) {
  const { distance, azimuth, elevation } = data.camera;
  const [a, e] = [azimuth, elevation].map(THREE.MathUtils.degToRad);
  const away = new THREE.Vector3(
    -Math.cos(a) * Math.cos(e), -Math.sin(a) * Math.cos(e), -Math.sin(e));
  controls.target.copy(target);
  camera.position.copy(target).addScaledVector(away, distance);
}

// ---------------------------------------------------------------------- playing

const episodes = data.episodes.map((e) => ({
  ...e, poses: floats(e.poses), path: floats(e.path),
  series: Object.fromEntries(Object.entries(e.series).map(([k, v]) => [k, floats(v)])),
}));
let episode, frame = 0, playing = true, before = null;
const last = () => episode.frames - 1;
const quaternion = new THREE.Quaternion();
const target = new THREE.Vector3();

function pathAt(f) {
  const i = Math.min(Math.floor(f), last()), j = Math.min(i + 1, last());
  const p = episode.path, s = f - i;
  return target.set(...[0, 1, 2].map((k) => p[3 * i + k] * (1 - s) + p[3 * j + k] * s));
}

function pose(f) {
  const i = Math.min(Math.floor(f), last()), j = Math.min(i + 1, last()), s = f - i;
  const p = episode.poses, n = 7 * bodies.length;
  bodies.forEach((body, b) => {
    const u = i * n + 7 * b, v = j * n + 7 * b;
    body.position.set(...[0, 1, 2].map((k) => p[u + k] * (1 - s) + p[v + k] * s));
    body.quaternion.set(p[u + 4], p[u + 5], p[u + 6], p[u + 3]);
    quaternion.set(p[v + 4], p[v + 5], p[v + 6], p[v + 3]);
    body.quaternion.slerp(quaternion, s);
  });
}

function number(x) {
  if (!Number.isFinite(x)) return '–';
  const size = Math.abs(x);
  if (size >= 1e4) return x.toFixed(0);
  return size >= 100 ? x.toFixed(1) : size >= 0.1 || x === 0 ? x.toFixed(2) : x.toPrecision(2);
}

function draw() {
  const old = controls.target.clone();
  pose(frame);
  if (at('follow').checked) {
    const moved = pathAt(frame).clone().sub(old);
    if (data.follows) {
      controls.target.add(moved);
      camera.position.add(moved);
    }
  }
  sun.target.position.copy(pathAt(frame));
  sun.position.copy(sun.target.position).add(
    new THREE.Vector3(-0.5, -0.8, 1.9).multiplyScalar(1.6 * reach));
  controls.update();
  renderer.render(scene, camera);
  const i = Math.round(frame);
  const shown = Object.entries(episode.series).map(([k, v]) => `${k} ${number(v[i])}`);
  at('numbers').textContent =
    [`step ${Math.min(i * episode.stride, episode.length)} of ${episode.length}`, ...shown].join('   ');
  at('time').textContent = `${(frame * episode.dt).toFixed(1)} / ${(last() * episode.dt).toFixed(1)} s`;
  at('scrub').value = frame;
  at('play').textContent = playing ? '❚❚' : '▶';
}

function choose(index) {
  episode = episodes[index];
  frame = 0;
  at('scrub').max = last();
  const [head, text] = [at('title').querySelector('b'), at('title').querySelector('span')];
  head.textContent = episode.title;
  text.textContent = data.subtitle;
  aim(pathAt(0));
  draw();
}

function tick(now) {
  if (playing && before !== null) {
    // A tab that was away does not make up for it.
    const seconds = Math.min((now - before) / 1000, 0.25) * Number(at('speed').value);
    frame += seconds / episode.dt;
    if (frame > last()) frame = last() ? frame % last() : 0;
  }
  before = now;
  draw();
  requestAnimationFrame(tick);
}

episodes.forEach((e, i) => at('episode').add(new Option(e.title, i)));
at('episode').addEventListener('change', (event) => choose(Number(event.target.value)));
at('scrub').addEventListener('input', (event) => { frame = Number(event.target.value); draw(); });
at('play').addEventListener('click', () => { playing = !playing; });
addEventListener('keydown', (event) => {
  if (event.target.tagName === 'SELECT') return;
  if (event.key === ' ') playing = !playing;
  else if (event.key === 'ArrowRight') frame = Math.min(frame + 1, last());
  else if (event.key === 'ArrowLeft') frame = Math.max(frame - 1, 0);
  else return;
  event.preventDefault();
});

// #t=2.5 begins there, and stands still: for a picture of a moment.
const moment = /^#t=([0-9.]+)$/.exec(location.hash);
resize();
choose(0);
if (moment) {
  playing = false;
  frame = Math.min(Number(moment[1]) / episode.dt, last());
  draw();
}
document.documentElement.dataset.state = 'ready';
requestAnimationFrame(tick);
