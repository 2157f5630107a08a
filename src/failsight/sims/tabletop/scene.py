"""The MuJoCo model of the tabletop: primitive geoms, a 6-DOF gantry with a two-finger gripper, two cameras.

Settings (time step, cone, friction priority, gains) are those measured to hold objects with under 3 mm of slip and
to save and restore bit-exactly. World frame: origin at the table top's centre, z up, x toward the agent camera, y to
the camera's right. The gantry pivots at the tool centre point (TCP) between the finger tips.
"""

from __future__ import annotations

import mujoco

OBJECTS = ("red_cube", "green_cube", "blue_cube", "yellow_cylinder")
BIN_Y = {"left": -0.24, "right": 0.24}
BIN_HALF = 0.06
WALL_Y = 0.155
WALL_TOP = 0.09
POST_HALF_HEIGHT = 0.05
OBJECT_HALF = 0.02
PARKED = (2.0, 2.0, -0.48)
SUBSTEPS = 10
RATE_HZ = 20.0
FINGER_TRAVEL = 0.036
GANTRY = ("x", "y", "z", "yaw", "pitch", "roll")

_COLORS = {
    "red_cube": ".85 .12 .12 1",
    "green_cube": ".10 .65 .20 1",
    "blue_cube": ".12 .25 .85 1",
    "yellow_cylinder": ".92 .80 .10 1",
}


def _object_xml(index: int, name: str) -> str:
    shape = 'type="cylinder" size=".02 .02"' if "cylinder" in name else 'type="box" size=".02 .02 .02"'
    return f"""
    <body name="{name}" pos="{PARKED[0] + 0.2 * index} {PARKED[1]} {PARKED[2]}">
      <freejoint name="{name}"/>
      <geom name="{name}" {shape} mass=".06" rgba="{_COLORS[name]}" friction="1 .005 .0001" priority="1" condim="4"/>
    </body>"""


def _bin_xml(side: str, y: float) -> str:
    inner, thick, half_height = BIN_HALF, 0.004, 0.018
    out = inner + thick
    walls = [(out, 0, thick, out), (-out, 0, thick, out), (0, out, inner, thick), (0, -out, inner, thick)]
    geoms = "".join(
        f'<geom name="bin_{side}_{i}" type="box" pos="{px} {py} {half_height}" size="{sx} {sy} {half_height}" '
        f'rgba=".55 .52 .50 1"/>'
        for i, (px, py, sx, sy) in enumerate(walls)
    )
    floor = (
        f'<geom name="bin_{side}_floor" type="box" pos="0 0 .0015" size="{inner} {inner} .0015" rgba=".4 .38 .37 1"/>'
    )
    return f'<body name="bin_{side}" pos="0 {y} 0">{floor}{geoms}</body>'


def _finger_xml(side: str, sign: int) -> str:
    return f"""
      <body name="finger_{side}" pos="0 {sign * 0.04} .019">
        <joint name="finger_{side}" type="slide" axis="0 {-sign} 0" range="0 {FINGER_TRAVEL}" damping="2" armature=".02"/>
        <geom name="finger_{side}" type="box" size=".010 .004 .029" mass=".03" rgba=".25 .25 .28 1" friction="1.2 .005 .0001"/>
      </body>"""


def scene_xml() -> str:
    """The MJCF text."""
    chain, close = "", ""
    axes = {"x": "1 0 0", "y": "0 1 0", "z": "0 0 1", "yaw": "0 0 1", "pitch": "0 1 0", "roll": "1 0 0"}
    for name in GANTRY:
        hinge = name in ("yaw", "pitch", "roll")
        limits = {"x": "-.25 .25", "y": "-.36 .36", "z": "-.20 .12", "yaw": "-1.9 1.9"}.get(name, "-.6 .6")
        joint = (
            f'<joint name="{name}" type="{"hinge" if hinge else "slide"}" axis="{axes[name]}" range="{limits}" '
            f'armature="{".01" if hinge else "0"}"/>'
        )
        base = ' pos="0 0 .22"' if name == "x" else ""
        inertia = '<inertial pos="0 0 .1" mass=".2" diaginertia=".0005 .0005 .0005"/>'
        chain += f'<body name="link_{name}"{base} gravcomp="1">{joint}{inertia}'
        close += "</body>"
    actuators = "".join(
        f'<position name="{n}" joint="{n}" kp="1200" dampratio="1" forcerange="-60 60"/>' for n in GANTRY[:3]
    ) + "".join(f'<position name="{n}" joint="{n}" kp="30" dampratio="1" forcerange="-5 5"/>' for n in GANTRY[3:])
    return f"""
<mujoco model="failsight_tabletop">
  <compiler angle="radian" autolimits="true"/>
  <option timestep=".005" integrator="implicitfast" cone="elliptic" impratio="10" iterations="50"/>
  <visual>
    <quality offsamples="0" shadowsize="0"/>
    <global offwidth="640" offheight="640"/>
    <headlight ambient=".35 .35 .35" diffuse=".25 .25 .25" specular="0 0 0"/>
  </visual>
  <worldbody>
    <light name="lamp" pos=".3 -.3 1.5" dir="-.2 .2 -1" directional="true" diffuse=".6 .6 .6" specular="0 0 0" castshadow="false"/>
    <camera name="agent" pos=".42 0 .62" xyaxes="0 1 0 -.83 0 .56" fovy="49"/>
    <geom name="ground" type="plane" pos="0 0 -.5" size="4 4 .1" rgba=".30 .33 .36 1"/>
    <geom name="table" type="box" pos="0 0 -.02" size=".35 .42 .02" rgba=".72 .66 .58 1"/>
    {"".join(_bin_xml(side, y) for side, y in BIN_Y.items())}
    <body name="wall" mocap="true" pos="{PARKED[0]} {PARKED[1] + 1} 0">
      <geom name="wall" type="box" size=".09 .006 {WALL_TOP / 2}" rgba=".45 .20 .55 1"/>
    </body>
    <body name="post" pos="{PARKED[0]} {PARKED[1] + 0.5} -.44">
      <freejoint name="post"/>
      <geom name="post" type="cylinder" size=".012 {POST_HALF_HEIGHT}" mass=".08" rgba=".1 .8 .8 1"/>
    </body>
    {"".join(_object_xml(i, name) for i, name in enumerate(OBJECTS))}
    {chain}
      <site name="tcp" pos="0 0 0"/>
      <geom name="palm" type="box" pos="0 0 .063" size=".025 .05 .015" mass=".2" rgba=".35 .36 .40 1"/>
      <geom name="arm" type="cylinder" pos="0 0 .16" size=".018 .08" mass=".1" rgba=".5 .5 .55 1" contype="0" conaffinity="0"/>
      <camera name="wrist" pos=".06 0 .08" euler="0 .454 0" fovy="80"/>
      {_finger_xml("left", -1)}{_finger_xml("right", 1)}
    {close}
  </worldbody>
  <equality><joint joint1="finger_right" joint2="finger_left" solref=".01 1"/></equality>
  <actuator>
    {actuators}
    <position name="gripper" joint="finger_left" kp="600" dampratio="1" forcerange="-15 15"/>
  </actuator>
</mujoco>"""


def build_model() -> mujoco.MjModel:
    """Compile the scene."""
    return mujoco.MjModel.from_xml_string(scene_xml())
