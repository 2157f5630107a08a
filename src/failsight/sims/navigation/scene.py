"""The room in MJCF: a holonomic base on velocity servos, a forward camera, two boxes on mocap, a bottle that can fall.

The base moves on two sliders and a hinge: what omni wheels achieve, without the rollers (the three wheels are drawn).
"""

from __future__ import annotations

import mujoco

RATE_HZ = 2.5
SUBSTEPS, TIMESTEP_S = 40, 0.01
ROBOT_RADIUS_M, BOTTLE_RADIUS_M = 0.16, 0.04
PARK_M = 30.0
"""Where unused boxes stand."""

_WHEELS = "".join(
    f'<geom type="cylinder" size="0.045 0.02" pos="{x} {y} 0.045" zaxis="{x} {y} 0" rgba=".1 .1 .1 1" contype="0" conaffinity="0"/>'
    for x, y in ((0.14, 0.0), (-0.07, 0.12), (-0.07, -0.12))
)

XML = f"""
<mujoco model="navigation">
  <option timestep="{TIMESTEP_S}" integrator="implicitfast"/>
  <visual>
    <headlight ambient=".45 .45 .45" diffuse=".45 .45 .45" specular="0 0 0"/>
    <quality offsamples="0"/>
    <global offwidth="512" offheight="512"/>
    <map znear="0.01"/>
  </visual>
  <asset>
    <texture name="sky" type="skybox" builtin="gradient" rgb1=".85 .88 .92" rgb2=".70 .74 .80" width="64" height="64"/>
    <texture name="tiles" type="2d" builtin="checker" rgb1=".62 .58 .52" rgb2=".56 .53 .48" width="64" height="64"/>
    <material name="floor" texture="tiles" texrepeat="16 16" texuniform="false"/>
  </asset>
  <worldbody>
    <light name="lamp" pos="0 0 3" dir="0 0 -1" diffuse=".5 .5 .5" castshadow="false"/>
    <geom name="floor" type="plane" size="8 8 .1" material="floor"/>
    <geom name="wall_front" type="box" size=".05 8 .6" pos="4.5 0 .6" rgba=".75 .78 .82 1"/>
    <geom name="wall_left" type="box" size="8 .05 .6" pos="0 3 .6" rgba=".80 .76 .70 1"/>
    <geom name="wall_right" type="box" size="8 .05 .6" pos="0 -3 .6" rgba=".72 .80 .74 1"/>
    <camera name="room" pos="-1.4 0 2.4" xyaxes="0 -1 0 .66 0 .75" fovy="60"/>
    <body name="base">
      <joint name="x" type="slide" axis="1 0 0" damping="1"/>
      <joint name="y" type="slide" axis="0 1 0" damping="1"/>
      <joint name="yaw" type="hinge" axis="0 0 1" damping=".2"/>
      <geom name="robot" type="cylinder" size="{ROBOT_RADIUS_M} .08" pos="0 0 .12" mass="6" rgba=".25 .35 .75 1"/>
      {_WHEELS}
      <camera name="front" pos=".14 0 .30" xyaxes="0 -1 0 .26 0 .97" fovy="78"/>
    </body>
    <body name="box0" mocap="true" pos="{PARK_M} 0 0"><geom name="box0" type="box" size=".2 .1 .17" rgba=".72 .45 .20 1"/></body>
    <body name="box1" mocap="true" pos="{PARK_M} 1 0"><geom name="box1" type="box" size=".2 .1 .17" rgba=".60 .36 .16 1"/></body>
    <body name="bottle" pos="2 0 .11">
      <freejoint name="bottle"/>
      <geom name="bottle" type="cylinder" size="{BOTTLE_RADIUS_M} .09" mass=".3" rgba=".10 .65 .25 1"/>
      <geom name="cap" type="cylinder" size=".018 .03" pos="0 0 .12" mass=".02" rgba=".9 .1 .1 1"/>
    </body>
  </worldbody>
  <actuator>
    <velocity name="vx" joint="x" kv="200"/>
    <velocity name="vy" joint="y" kv="200"/>
    <velocity name="vyaw" joint="yaw" kv="20"/>
  </actuator>
</mujoco>
"""


def build_model() -> mujoco.MjModel:
    """The compiled room."""
    return mujoco.MjModel.from_xml_string(XML)
